"""retention: how long sessions are kept."""

from typing import Annotated, Final

import typer

from sessions.cli import examples, output, settings
from sessions.cli.recorder_commands import Session
from sessions.cli.settings import Json

_MAX_DAYS: Final = 36_500
_FATE: Final = {"shred": "goes next", "held": "stays: legal hold", "retained": "stays: retained"}

retention = typer.Typer(help="How long sessions are kept.", no_args_is_help=True)


@retention.command("due", epilog=examples.of("retention due"))
def due(context: typer.Context, as_json: Json = False) -> None:
    """List sessions whose time is up, and what becomes of each.

    It needs the role admin or audit, and changes nothing.
    """
    with settings.of(context).client() as client:
        found = list(client.retention_due())
    if as_json:
        output.document({"sessions": found})
        return
    rows = ((one.session_id, _minute(one.delete_at), _fate(one.verdict, one.retained_until)) for one in found)
    output.table((("SESSION", False), ("DUE", False), ("WHAT HAPPENS", False)), rows)


@retention.command("set", epilog=examples.of("retention set"))
def set_terms(
    context: typer.Context,
    session: Session,
    retain_days: Annotated[
        int | None,
        typer.Option(min=0, max=_MAX_DAYS, metavar="DAYS", help="Before then nobody may shred it.", show_default=False),
    ] = None,
    delete_after_days: Annotated[
        int | None,
        typer.Option(min=0, max=_MAX_DAYS, metavar="DAYS", help="Then it is shredded; 0: never.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a session terms of its own, in days after its seal.

    They take the place of those it has; what is left out is as the operator set
    it for all sessions. Not below the operator's RETAIN_DAYS. It needs the role admin.
    """
    with settings.of(context).client() as client:
        kept = client.set_retention(session, retain_days=retain_days, delete_after_days=delete_after_days)
    if as_json:
        output.document(kept)
        return
    output.fields(
        (
            ("session", kept.session_id),
            ("retained until", kept.retained_until or "-"),
            ("deleted at", kept.delete_at or "-"),
        )
    )


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _fate(verdict: str, retained_until: str | None) -> str:
    until = f" until {_minute(retained_until)}" if verdict == "retained" and retained_until else ""
    return _FATE[verdict] + until
