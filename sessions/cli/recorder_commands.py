"""record, status, seal, replay: what a recorder and whoever watches recordings need."""

import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from sessions.cli import output, settings
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.progress import progress
from sessions.cli.settings import TRANSFER_RETRY_SECONDS, Json
from sessions.client.errors import BusyError, SourceError, UnreachableError
from sessions.core.types import session_id

Session = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.", show_default=False)]


def new_session_id() -> str:
    """A session id that says when it was made, and is not guessed."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"


def _stdin() -> BinaryIO:
    """Stdin without a buffer: the lock of a buffer that waits for a silent pipe would stop Ctrl-C from ending us."""
    try:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    except OSError:
        return sys.stdin.buffer


def record(
    context: typer.Context,
    *,
    source: Annotated[str, typer.Argument(metavar="FILE", help="The recording; - for stdin.", show_default=False)],
    session: Annotated[str | None, typer.Option(metavar="ID", help="Id of the session; made up when absent.")] = None,
    chunk_bytes: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Size of a chunk.")] = 1024 * 1024,
    in_flight: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Chunks under way at once.")] = 4,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object to keep with it, or @FILE.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a session that was begun.")] = True,
    as_json: Json = False,
) -> None:
    """Send a recording in chunks and seal its session.

    Interrupted? The same command with the same --session goes on where it ended.
    """
    name = session_id(session or new_session_id())
    extra = settings.metadata_object(metadata)
    if source != "-" and not Path(source).exists():  # said before an id is made up for it
        raise SourceError(f"cannot open {source}: there is no such file", "give a file, or - for stdin")
    output.note(f"session {name}")
    with settings.of(context).client(TRANSFER_RETRY_SECONDS) as client, progress("record") as advance:
        try:
            done = client.record(
                _stdin() if source == "-" else source,
                name,
                chunk_bytes=chunk_bytes,
                in_flight=in_flight,
                resume=resume,
                metadata=extra,
                progress=lambda seen: advance(seen.bytes_done, seen.total_bytes),
            )
        except (UnreachableError, BusyError) as error:
            error.hint = "; ".join(filter(None, (error.hint, f"to go on, give --session {name} to the same command")))
            raise
    if as_json:
        output.document(done)
        return
    output.fields(
        (
            ("session", done.session_id),
            ("chunks", f"{done.chunk_count} ({done.sent} sent now)"),
            ("recorded", output.size(done.plaintext_bytes)),
            ("root", done.seal.root.hex()),
            ("sealed at", done.seal.manifest.sealed_at),
            ("root checked", "yes, it covers every chunk" if done.root_checked else "no, some were sent earlier"),
        )
    )


def status(context: typer.Context, session: Session, as_json: Json = False) -> None:
    """Say how far a session is."""
    with settings.of(context).client() as client:
        seen = client.status(session)
    if as_json:
        output.document(seen)
        return
    gaps = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in seen.missing[:10])
    output.fields(
        (
            ("session", seen.session_id),
            ("status", seen.status),
            ("chunks", seen.chunk_count),
            ("next index", seen.next_index),
            ("missing", gaps + (" and more" if len(seen.missing) > 10 else "") if gaps else None),  # noqa: PLR2004
            ("recorded", output.size(seen.plaintext_bytes)),
            ("stored", output.size(seen.envelope_bytes)),
            ("opened at", seen.opened_at),
            ("sealed at", seen.sealed_at),
            ("retained until", seen.retained_until),
            ("deleted at", seen.delete_at),
            ("shredded at", seen.shredded_at),
            ("shredded by", seen.shredded_by and f"{seen.shredded_by} ({seen.shred_reason})"),
            ("root", seen.root and seen.root.hex()),
            ("anchor", seen.anchor and seen.anchor.state.value),
        )
    )
    _warn_of(seen.unheard)


def seal(
    context: typer.Context,
    session: Session,
    chunk_count: Annotated[int | None, typer.Option(min=0, metavar="N", help="How many chunks there must be.")] = None,
    as_json: Json = False,
) -> None:
    """Fix a session's chunk count and root for good.

    It takes no more chunks then. The same again gives the same answer. While
    processors hold some of the session, the seal is kept and waits for them.
    """
    with settings.of(context).client() as client:
        sealed = client.seal(session, chunk_count)
    if as_json:
        output.document(sealed)
        return
    output.fields(
        (
            ("session", session),
            ("chunks", sealed.manifest.chunk_count),
            ("root", sealed.root.hex()),
            ("manifest", sealed.manifest_sha256.hex()),
            ("sealed at", sealed.manifest.sealed_at),
        )
    )
    _warn_of(sealed.unheard)


def _warn_of(unheard: Sequence[str]) -> None:
    if unheard:
        names = ", ".join(unheard)
        output.paragraph("[!]", f"sealed without hearing from {names}: chunks that were spooled there may be left out")


def replay(
    context: typer.Context,
    *,
    session: Session,
    out: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - for stdout.")] = "-",
    start: Annotated[int, typer.Option(min=0, metavar="BYTE", help="First byte to fetch.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a recording, decrypted. A file appears only when it is complete."""
    to_stdout = out == "-"
    if to_stdout and as_json:
        raise CommandError("--json needs -o FILE: stdout holds the recording", code=ExitCode.USAGE)
    if to_stdout and sys.stdout.isatty():
        raise CommandError("the recording is not for a terminal", "give -o FILE, or a pipe", code=ExitCode.USAGE)
    with settings.of(context).client(TRANSFER_RETRY_SECONDS) as client, progress("replay") as advance:
        count = client.replay(
            session,
            sys.stdout.buffer if to_stdout else Path(out),
            start=start,
            overwrite=force,
            progress=advance,
        )
    if as_json:
        output.document({"session_id": session, "file": out, "start": start, "bytes": count})
    else:
        output.note(f"{output.size(count)} of session {session}" + (f", from byte {start} on" if start else ""))
