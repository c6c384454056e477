"""spool: what session-storage did not take, and the ways out of quarantine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sessions.cli import examples, output, settings
from sessions.cli.settings import TRANSFER_RETRY_SECONDS, Json
from sessions.client.targets import open_out

if TYPE_CHECKING:
    from sessions.client.spool import SpoolEntry

spool = typer.Typer(help="Quarantine of a chunk-processor.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the entry, from spool list.", show_default=False)]


@spool.command("list", epilog=examples.of("spool list"))
def list_entries(context: typer.Context, as_json: Json = False) -> None:
    """List entries that session-storage did not take.

    Each processor has a quarantine of its own: ask each by --processor-url. It
    needs the role admin.
    """
    with settings.of(context).client() as client:
        page = client.spool_page(limit=1)
        found = list(client.spool_entries())
    if as_json:
        output.document({**output.jsonable(page), "entries": output.jsonable(found), "next_cursor": None})
        return
    if found:
        columns = (("SESSION", False), ("CHUNK", True), ("REASON", False), ("NAME", False))
        output.table(columns, ((one.session_id or "-", _what(one), one.reason, one.name) for one in found))
        output.line("")
    held = f"{output.size(page.quarantined_bytes)} of {output.size(page.quarantine_max_bytes)}"
    output.fields(
        (
            ("quarantine", f"{page.quarantined_entries} entries, {held}"),
            ("spool", f"{page.spooled_entries} entries, {output.size(page.spooled_bytes)}, to be delivered"),
        )
    )


@spool.command("show", epilog=examples.of("spool show"))
def show(
    context: typer.Context,
    name: Name,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the chunk, decrypted, to a new file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why an entry is in quarantine, or decrypt its chunk.

    It needs the role admin; with -o the role replay.
    """
    if out is not None:
        _write(context, name, out, as_json=as_json)
        return
    with settings.of(context).client() as client:
        one = client.spool_entry(name)
    if as_json:
        output.document(one)
        return
    output.fields(
        (
            ("name", one.name),
            ("kind", one.kind or "unknown"),
            ("session", one.session_id or "unknown"),
            ("chunk", one.index),
            ("size", output.size(one.entry_bytes)),
            ("recorded by", one.by),
            ("since", one.quarantined_at),
            ("reason", one.reason),
        )
    )
    if one.detail:
        output.paragraph("[i]", one.detail)


@spool.command("retry", epilog=examples.of("spool retry"))
def retry(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Put an entry back into the spool, to be delivered again.

    Remove the cause first. An entry that is refused again comes back under
    another name. It needs the role admin.
    """
    with settings.of(context).client() as client:
        client.retry_spooled(name)
    if as_json:
        output.document({"name": name, "retried": True})
    else:
        output.note(f"{name} is back in the spool, and is delivered next")


@spool.command("drop", epilog=examples.of("spool drop"))
def drop(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Delete an entry for good.

    It was acknowledged to a recorder, and its content may be nowhere else: see
    spool show -o. It needs the role admin.
    """
    with settings.of(context).client() as client:
        client.drop_spooled(name)
    if as_json:
        output.document({"name": name, "dropped": True})
    else:
        output.note(f"{name} is deleted")


def _write(context: typer.Context, name: str, out: Path, *, as_json: bool) -> None:
    with open_out(out) as write, settings.of(context).client(TRANSFER_RETRY_SECONDS) as client:
        data = client.spool_content(name)
        write(data)
    if as_json:
        output.document({"name": name, "file": str(out), "bytes": len(data)})
    else:
        output.note(f"{output.size(len(data))} of entry {name} in {out}")


def _what(one: "SpoolEntry") -> str:
    return str(one.index) if one.index is not None else one.kind or "-"
