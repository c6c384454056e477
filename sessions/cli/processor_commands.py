"""processors: which chunk-processors session-storage knows, and seals wait for."""

from typing import Annotated

import typer

from sessions.cli import examples, output, settings
from sessions.cli.settings import Json

processors = typer.Typer(help="Processors that seals wait for.", no_args_is_help=True)


@processors.command("list", epilog=examples.of("processors list"))
def list_processors(context: typer.Context, as_json: Json = False) -> None:
    """List the processors that session-storage knows.

    A seal waits for each until it has handed over what its spool holds of the
    session. It does not wait for one that is lost. It needs the role admin or
    audit.
    """
    with settings.of(context).client() as client:
        found = client.processors()
    if as_json:
        output.document({"processors": found})
        return
    columns = (
        ("PROCESSOR", False),
        ("STATE", False),
        ("LAST REPORT", False),
        ("SPOOLED", True),
        ("SIZE", True),
        ("QUARANTINED", True),
    )
    rows = (
        (
            one.name,
            one.state,
            one.last_report_at[:16].replace("T", " "),
            str(one.spooled_entries),
            output.size(one.spooled_bytes),
            str(one.quarantined_entries),
        )
        for one in found
    )
    output.table(columns, rows)


@processors.command("forget", epilog=examples.of("processors forget"))
def forget(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, from processors list.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Have seals no longer wait for a processor that will not come back.

    What its spool still holds is left out of sessions that are sealed from then
    on. One that does come back reports again, and is known again. It needs the
    role admin.
    """
    with settings.of(context).client() as client:
        client.forget_processor(name)
    if as_json:
        output.document({"name": name, "forgotten": True})
    else:
        output.note(f"{name} is forgotten: no seal waits for it")
