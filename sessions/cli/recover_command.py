"""keys recover: a recording from what is stored and the recovery key alone. No service is asked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sessions.cli import output, settings
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.progress import progress
from sessions.cli.recorder_commands import Session
from sessions.cli.settings import Json
from sessions.core import key_ring, manifest
from sessions.core.errors import FormatError
from sessions.core.manifest import Manifest
from sessions.core.types import session_id

if TYPE_CHECKING:
    from sessions.core.key_ring import KeyRing
    from sessions.processor.restoring import EnvelopeSource

_EXTRA = "pip install 'lucid-sessions[recovery]'"
_MAX_RING_BYTES = 16 * 1024 * 1024


def recovery_module() -> Any:
    """The code that knows recovery keys; it needs a library that the rest of the command line does not.

    Raises:
        CommandError: the library is not installed.
    """
    with _libraries():
        from sessions.processor import recovery
    return recovery


@contextmanager
def _libraries() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise CommandError(f"recovery needs a library that is not installed ({error.name})", _EXTRA) from error


def recover(
    *,
    session: Session,
    private_key: Annotated[Path, typer.Option(metavar="FILE", help="The recovery key.", show_default=False)],
    dump: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An export of the database: of mongodump or mongoexport.")
    ] = None,
    envelopes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Or: the envelopes, as `envelopes` fetched them.")
    ] = None,
    ring_file: Annotated[
        Path | None, typer.Option("--key-ring", metavar="FILE", help="with the key ring, of keys export.")
    ] = None,
    out: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - for stdout.")] = "-",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out what is lost, and say so.")] = False,
    as_json: Json = False,
) -> None:
    """Restore a recording with the recovery key alone.

    No service is asked. Give either --dump, or --envelopes and --key-ring. An
    export holds sessions, chunks and bodies as .bson (mongodump) or .json
    (mongoexport, one document a line), also with .gz.
    """
    name = session_id(session)
    if (dump is None) == (envelopes is None) or (envelopes is None) != (ring_file is None):
        raise CommandError("give either --dump, or --envelopes and --key-ring", code=ExitCode.USAGE)
    if out == "-" and (as_json or sys.stdout.isatty()):
        raise CommandError("stdout holds the recording", "give -o FILE", code=ExitCode.USAGE)
    recovery = recovery_module()
    with _libraries():
        from sessions.processor import restoring
    try:
        key = recovery.RecoveryKey(settings.read_text(private_key, "recovery key"))
    except recovery.RecoveryKeyError as error:
        raise CommandError(f"{private_key}: {error}", code=ExitCode.USAGE) from None
    with _source(name, dump, envelopes, ring_file, restoring) as (ring, source, sealed):
        from sessions.client.targets import open_out
        from sessions.runtime.errors import DomainError

        target = sys.stdout.buffer if out == "-" else Path(out)
        try:
            with open_out(target) as write, progress("chunks", counted=True) as advance:
                done = restoring.restore(ring, key, source, write, manifest=sealed, partial=partial, progress=advance)
        except DomainError as error:
            code = ExitCode.VERIFICATION_FAILED if error.code == "envelope-corrupt" else ExitCode.FAILED
            raise CommandError(error.detail, code=code) from None
    lost = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in done.lost)
    if as_json:
        output.document({"session_id": name, "file": out, **output.jsonable(done)})
        return
    output.note(f"{done.chunks} chunks, {done.plaintext_bytes} bytes of session {name}")
    if lost:
        output.note(f"lost: chunks {lost}")
    if done.root_checked:
        output.note("all that was sealed is there: the root is the manifest's")
    elif not lost:
        output.note(
            "whether that is all of it, verify --recording-envelopes tells" if envelopes else "it was not sealed"
        )


@contextmanager
def _source(
    name: str, dump: Path | None, envelopes: Path | None, ring_file: Path | None, restoring: ModuleType
) -> Iterator[tuple["KeyRing", "EnvelopeSource", Manifest | None]]:
    """The key ring, where the envelopes are, and the manifest if there is one."""
    if dump is None:
        assert envelopes is not None
        assert ring_file is not None
        ring = key_ring.from_bytes(settings.read_text(ring_file, "key ring").encode())
        if ring.session_id != name:
            raise CommandError(f"{ring_file} is the key ring of session {ring.session_id}", code=ExitCode.USAGE)
        if not envelopes.is_dir():
            raise CommandError(f"{envelopes} is not a folder", code=ExitCode.USAGE)
        yield ring, restoring.EnvelopeFolder(envelopes), None
        return
    with _libraries():
        from sessions.storage.dump import Dump, DumpError
    try:
        with Dump(dump) as opened:
            found = opened.session(session_id(name))
            yield found.ring, found, None if found.manifest is None else manifest.from_bytes(found.manifest)
    except DumpError as error:
        raise CommandError(str(error)) from error
    except FormatError as error:
        raise CommandError(f"the manifest in the export is not one: {error}") from error
