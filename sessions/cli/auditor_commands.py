"""list, receipt, proof, envelopes: what an auditor fetches from session-storage."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from sessions.cli import output, settings
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.progress import progress
from sessions.cli.recorder_commands import Session
from sessions.cli.settings import TRANSFER_RETRY_SECONDS, Json
from sessions.core.receipt import AnchorState

OutFile = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - for stdout.")]


def list_sessions(
    context: typer.Context,
    *,
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="open, sealing, sealed or shredded.")] = None,
    opened_after: Annotated[str | None, typer.Option(metavar="TIME", help="As 2027-01-31T00:00:00Z.")] = None,
    opened_before: Annotated[str | None, typer.Option(metavar="TIME", help="The same.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List sessions, newest first."""
    with settings.of(context).client() as client:
        found = list(
            islice(
                client.list_sessions(
                    status=status, opened_after=opened_after, opened_before=opened_before, limit=min(limit, 1000)
                ),
                limit,
            )
        )
    if as_json:
        output.document({"sessions": found})
        return
    columns = (
        ("SESSION", False),
        ("STATUS", False),
        ("CHUNKS", True),
        ("SIZE", True),
        ("OPENED", False),
        ("ANCHOR", False),
    )
    rows = (
        (
            one.session_id,
            one.status,
            "-" if one.chunk_count is None else str(one.chunk_count),
            "-" if one.plaintext_bytes is None else output.size(one.plaintext_bytes),
            one.opened_at[:16].replace("T", " "),
            one.anchor.state.value if one.anchor else "-",
        )
        for one in found
    )
    output.table(columns, rows)


def receipt(
    context: typer.Context,
    session: Session,
    out: OutFile = "-",
    wait: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Wait so long until confirmed.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Fetch the receipt, which proves a session to anybody.

    The session has to be sealed. Its anchor is confirmed some time later:
    --wait for it, or fetch the receipt again.
    """
    last = ""

    def on_wait(state: str) -> None:
        nonlocal last
        if state != last:
            output.note(f"waiting: the anchor is {state}")
            last = state

    with settings.of(context).client() as client:
        got = client.receipt(session, wait_seconds=wait, on_wait=on_wait)
    state = got.anchor.state
    _deliver(got.to_json(), out, as_json=as_json, summary={"session_id": session, "file": out, "state": state.value})
    if state is not AnchorState.CONFIRMED:
        if wait:
            raise CommandError(
                f"the anchor is still {state.value} after {wait:g} s", "try again later", code=ExitCode.PROVEN_IN_PART
            )
        output.note(f"the anchor is {state.value}: fetch the receipt again later, or give --wait SECONDS")


def proof(
    context: typer.Context,
    session: Session,
    index: Annotated[int, typer.Argument(min=0, metavar="INDEX", help="Index of the chunk.", show_default=False)],
    out: OutFile = "-",
    as_json: Json = False,
) -> None:
    """Fetch the proof that a chunk is in its session.

    It is checked before it is written.
    """
    with settings.of(context).client() as client:
        got = client.proof(session, index)
    _deliver(got.to_json(), out, as_json=as_json, summary={"session_id": session, "index": index, "file": out})


def envelopes(
    context: typer.Context,
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if need be.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Fetch the chunks of a session as stored, encrypted.

    For verify --recording-envelopes. They tell nothing without the key.
    """
    with settings.of(context).client(TRANSFER_RETRY_SECONDS) as client, progress("envelopes") as advance:
        total = client.status(session).envelope_bytes
        count, size = client.envelopes(session, folder, progress=lambda _count, done: advance(done, total))
    if as_json:
        output.document({"session_id": session, "folder": str(folder), "envelopes": count, "bytes": size})
    else:
        output.note(f"{count} envelopes, {output.size(size)}, in {folder}")


def _deliver(value: object, out: str, *, as_json: bool, summary: dict[str, object]) -> None:
    """A document that is JSON anyway: onto stdout, or into a file."""
    if out == "-":
        output.document(value)
        return
    output.save(Path(out), json.dumps(value, indent=2) + "\n")
    if as_json:
        output.document(summary)
    else:
        output.note(f"written to {out}")
