"""keys: the keys of chunk-processor, from the first to the last day of each."""

import base64
import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sessions.cli import examples, output, recover_command, secret_files, settings
from sessions.cli.auditor_commands import OutFile
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.progress import progress
from sessions.cli.recorder_commands import Session
from sessions.cli.settings import TRANSFER_RETRY_SECONDS, Json
from sessions.core import key_ring

if TYPE_CHECKING:
    from sessions.client.keys import KeyStatus

_KEK_ID = re.compile(key_ring.KEK_ID_PATTERN[1:-1])
_SHOWN: Final = 10

keys = typer.Typer(help="Keys of chunk-processor (KEKs), and recovery.", no_args_is_help=True)


@keys.command("new", epilog=examples.of("keys new"))
def new_key(
    key_id: Annotated[
        str | None, typer.Option("--id", metavar="NAME", help="Name of the key; made up when absent.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file, readable by you alone.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key-encryption key: a line ID:BASE64 for KEK_FILE.

    Whoever has it reads all recordings; without it nobody does. Keep a copy offline.
    """
    name = key_id or f"kek-{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}"
    if not _KEK_ID.fullmatch(name):
        raise CommandError("--id is not 1 to 64 of A-Z a-z 0-9 . _ -", code=ExitCode.USAGE)
    line = f"{name}:{base64.b64encode(secrets.token_bytes(key_ring.KEY_BYTES)).decode()}"
    if out is not None:
        secret_files.write_new(out, line + "\n")
    if as_json:
        output.document({"kek_id": name, "file": str(out)} if out else {"kek_id": name, "line": line})
    elif out is None:
        output.line(line)
    else:
        output.note(f"key {name} written to {out}; keep a copy offline")


@keys.command("new-recovery", epilog=examples.of("keys new-recovery"))
def new_recovery(
    private: Annotated[Path, typer.Option(metavar="FILE", help="New; keep it offline.", show_default=False)],
    public: Annotated[Path, typer.Option(metavar="FILE", help="New; for the services.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Make a recovery key pair, one half for offline.

    Whoever has the private file and a copy of the database reads all recordings
    whose keys are sealed to it: those made since the public file is set, and
    those of before, once keys rotate has run.
    """
    recovery = recover_command.recovery_module()
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise CommandError(
                f"{path} exists already", "a key is never overwritten: choose another name", code=ExitCode.REFUSED
            )
    private_line, public_line = recovery.generate()
    secret_files.write_new(private, private_line + "\n")
    try:
        secret_files.write_new(public, public_line + "\n", secret_files.READABLE)
    except Exception:
        private.unlink()  # ours, and of no use without the other half
        raise
    recipient = recovery.RecoveryKey(private_line).recipient_id
    if as_json:
        output.document({"recipient": recipient, "private": str(private), "public": str(public)})
        return
    output.note(f"recipient {recipient}")
    output.note(f"private key in {private}: move it offline; public key in {public}: RECOVERY_PUBLIC_KEY_FILE")


@keys.command("status", epilog=examples.of("keys status"))
def status(context: typer.Context, as_json: Json = False) -> None:
    """Say how many sessions need which KEK.

    And how many are sealed to which recovery key, or to none.
    """
    with settings.of(context).client() as client:
        found = client.key_status()
    if as_json:
        output.document(found)
        return
    rows = [
        (kek.kek_id, "active" if kek.kek_id == found.active else "in KEK_FILE" if kek.in_file else "MISSING", kek.rings)
        for kek in found.keks
    ]
    output.table((("KEK", False), ("STATE", False), ("SESSIONS", True)), [(*row[:2], str(row[2])) for row in rows])
    output.line("")
    output.fields(
        [
            ("recovery recipient", found.recipient or "none: RECOVERY_PUBLIC_KEY_FILE is not set"),
            *((f"sealed to {one.recipient or 'nobody'}", f"{one.rings} sessions") for one in found.recipients),
        ]
    )
    if found.recipient is not None and found.unsealed:
        more = ", …" if len(found.unsealed) > _SHOWN else ""
        output.paragraph("[i]", f"without recovery: {', '.join(found.unsealed[:_SHOWN])}{more}; rotate seals them")


@keys.command("rotate", epilog=examples.of("keys rotate"))
def rotate(context: typer.Context, as_json: Json = False) -> None:
    """Bring the keys of all sessions under the active KEK. No recording is touched.

    Recorders may go on meanwhile. Interrupted? The same command goes on with
    what is left. Exits with 1 when keys are left under another KEK.
    """
    with (
        settings.of(context).client(TRANSFER_RETRY_SECONDS) as client,
        progress("keys", counted=True) as advance,
    ):
        done = client.rotate_keys(advance)
    left = {kek.kek_id: kek.rings for kek in done.status.keks if kek.kek_id != done.status.active and kek.rings}
    unsealed = done.status.rings_to_seal
    if as_json:
        value = output.jsonable(done)
        output.document({**value, "left": left, "left_unsealed": unsealed})
    else:
        output.fields(
            (
                ("active KEK", done.status.active),
                ("rewrapped", f"{done.rewrapped} keys"),
                ("overtaken", f"{done.overtaken} keys" if done.overtaken else None),
                ("failed", f"{done.failed} keys" if done.failed else None),
                *((f"left under {kek}", f"{rings} sessions") for kek, rings in left.items()),
                ("left to seal", f"{unsealed} sessions" if unsealed else None),
            )
        )
    for failure in done.failures[:_SHOWN]:
        output.note(f"not rewrapped: {failure.detail}")
    if left or unsealed:
        raise typer.Exit(ExitCode.FAILED)


@keys.command("retire", epilog=examples.of("keys retire"))
def retire(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Name of the KEK.", show_default=False)],
    kek_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Take the line out of this KEK_FILE.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether a KEK may go from KEK_FILE.

    Refused while it is active, or the keys of any session are under it. Without
    --kek-file nothing is changed. All processors should have the new KEK first,
    or one of them may still wrap keys under this one.
    """
    lines = None if kek_file is None else settings.read_text(kek_file, "KEK file").splitlines(keepends=True)
    with settings.of(context).client() as client:
        found = client.key_status()
    _refuse_while_needed(found, key_id)
    removed = False
    if kek_file is not None and lines is not None:
        entries = [line for line in lines if line.strip() and not line.strip().startswith("#")]
        if entries and _id(entries[0]) == key_id:
            raise CommandError(f"{key_id} is the active one in {kek_file}", "it stays", code=ExitCode.REFUSED)
        rest = [line for line in lines if _id(line) != key_id]
        removed = len(rest) < len(lines)
        if removed:
            secret_files.replace(kek_file, "".join(rest))
    if as_json:
        output.document({"kek_id": key_id, "needed": False, "removed": removed})
        return
    output.line(f"no session needs the KEK {key_id}")
    if removed:
        output.note(f"its line was taken out of {kek_file}; restart the processors that read it")
    elif kek_file is not None:
        output.note(f"{kek_file} has no line of it")
    else:
        output.note("its line may now be removed from KEK_FILE")


def _id(line: str) -> str:
    return line.strip().partition(":")[0]


def _refuse_while_needed(found: "KeyStatus", key_id: str) -> None:
    if key_id == found.active:
        raise CommandError(
            f"{key_id} is the active KEK", "put another one first in KEK_FILE, and rotate", code=ExitCode.REFUSED
        )
    rings = next((kek.rings for kek in found.keks if kek.kek_id == key_id), None)
    if rings is None:
        raise CommandError(f"there is no KEK {key_id}", "see keys status", code=ExitCode.NOT_FOUND)
    if rings:
        raise CommandError(
            f"the keys of {rings} sessions are under {key_id}", "run keys rotate first", code=ExitCode.REFUSED
        )


@keys.command("export", epilog=examples.of("keys export"))
def export(context: typer.Context, session: Session, out: OutFile = "-", as_json: Json = False) -> None:
    """Fetch the key ring of a session, for recover.

    It needs the role admin. The ring is encrypted, but a copy of it outlives shredding: keep it with care.
    """
    with settings.of(context).client() as client:
        ring = client.key_ring(session)
    if out == "-":
        output.document(key_ring.to_json(ring))
        return
    secret_files.write_new(Path(out), json.dumps(key_ring.to_json(ring), indent=2) + "\n")
    if as_json:
        output.document({"session_id": session, "file": out, "keys": len(ring.keys)})
    else:
        output.note(f"{len(ring.keys)} keys of session {session} in {out}")


keys.command("recover", epilog=examples.of("keys recover"))(recover_command.recover)
