"""audit: who did, or was refused, what; and whether the trail of it is whole."""

from typing import TYPE_CHECKING, Annotated

import typer

from sessions.cli import examples, output, settings, verify_command
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.settings import Json
from sessions.client.errors import AnswerError

if TYPE_CHECKING:
    from sessions.client.audit import AuditItem

audit = typer.Typer(help="Who did, or was refused, what.", no_args_is_help=True)
Day = Annotated[str, typer.Argument(metavar="DAY", help="A UTC day, as 2026-01-31.", show_default=False)]


@audit.command("list", epilog=examples.of("audit list"))
def list_days(context: typer.Context, as_json: Json = False) -> None:
    """List the days of the audit trail, newest first.

    Each is sealed some minutes after its end (UTC), and anchored like a session.
    It needs the role admin or audit.
    """
    with settings.of(context).client() as client:
        found = list(client.audit_days())
    if as_json:
        output.document({"days": found})
        return
    rows = (
        (
            one.day,
            one.status,
            "-" if one.events is None else str(one.events),
            (one.sealed_at or "-")[:16].replace("T", " "),
            one.anchor.state.value if one.anchor else "-",
        )
        for one in found
    )
    columns = (("DAY", False), ("STATUS", False), ("EVENTS", True), ("SEALED", False), ("ANCHOR", False))
    output.table(columns, rows)


@audit.command("show", epilog=examples.of("audit show"))
def show(context: typer.Context, day: Day, as_json: Json = False) -> None:
    """Show the events of a day, in order.

    It needs the role admin or audit.
    """
    with settings.of(context).client() as client:
        found = list(client.audit_events(day))
    if as_json:
        output.document({"day": day, "events": found})
        return
    for item in found:
        output.paragraph(*_words(item))


@audit.command("verify", epilog=examples.of("audit verify"))
def verify(
    context: typer.Context,
    *,
    day: Day,
    rpc: verify_command.Rpc = None,
    publisher: verify_command.Publisher = None,
    contract: verify_command.Contract = None,
    require_anchor: verify_command.RequireAnchor = False,
    as_json: Json = False,
) -> None:
    """Verify that no event of a day is missing, altered or inserted.

    The day's root is computed again from its events, and compared with what was
    sealed; with --rpc also with the chain. It needs the role audit.

    Exits with 0 when nothing contradicts the receipt, 7 when something does,
    and 8 when the day is not sealed, or its anchor was asked for and is not proven.
    """
    from sessions.client.audit_check import verify_day
    from sessions.client.verifying import Request
    from sessions.core.audit import session_of

    request = Request(
        receipt=b"",
        node_url=rpc,
        publisher=verify_command.address(publisher, "--publisher"),
        contract=verify_command.address(contract, "--contract"),
    )
    with settings.of(context).client() as client:
        try:
            receipt = client.receipt(session_of(day))
        except AnswerError as error:
            if error.code != "session-open":
                raise
            hint = "a day is sealed some minutes after its end, in UTC"
            raise CommandError(f"{day} is not sealed yet", hint, code=ExitCode.PROVEN_IN_PART) from error
        report = verify_day(day, client.audit_events(day), receipt, request)
    verify_command.tell(report, require_anchor=require_anchor or rpc is not None, as_json=as_json)


def _words(item: "AuditItem") -> tuple[str, str]:
    event = item.event
    if event is None:
        return f"{item.index}:", "this is no event (of those that this program knows)"
    parts = [
        f"{event.action} {event.outcome}" + (f" ({event.code})" if event.code else ""),
        *([f"session {event.session_id}"] if event.session_id else []),
        *([f"by {event.principal}"] if event.principal else []),
        *([f"{event.count} times"] if event.count > 1 else []),
        f"at {event.service}",
        *([f"request {event.request_id}"] if event.request_id else []),
    ]
    return event.time[11:23], ", ".join(parts)
