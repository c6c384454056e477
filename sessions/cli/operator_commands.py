"""tokens, deploy-contract, shard-setup: what an operator needs to set the services up."""

import base64
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sessions.cli import examples, output, settings
from sessions.cli.exits import CommandError, ExitCode
from sessions.cli.settings import Json
from sessions.client.errors import TargetError, TargetTakenError

if TYPE_CHECKING:
    from sessions.storage.provision.sharding import Step

TOKEN_RANDOM_BYTES: Final = 32
_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SESSIONS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")

tokens = typer.Typer(help="Bearer tokens of both services.", no_args_is_help=True)


class Role(StrEnum):
    """What a token may be used for; the same words as the services'."""

    RECORD = "record"
    REPLAY = "replay"
    AUDIT = "audit"
    ADMIN = "admin"
    PROCESSOR = "processor"


_ROLES: Final = f"What it allows: {', '.join(Role)}. May be given again."


@tokens.command("new", epilog=examples.of("tokens new"))
def new_token(
    name: Annotated[str, typer.Option(metavar="NAME", help="Whose token it is, for the logs.", show_default=False)],
    role: Annotated[list[Role], typer.Option(metavar="ROLE", help=_ROLES, show_default=False)],
    *,
    sessions: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Only for sessions whose ids begin so; all, if left out.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Until when, as 2027-01-31T00:00:00Z; for good, if left out.")
    ] = None,
    append: Annotated[Path | None, typer.Option(metavar="FILE", help="The services' TOKENS_FILE.")] = None,
    as_json: Json = False,
) -> None:
    """Make a bearer token, which is shown this once.

    Itself on stdout; the line of TOKENS_FILE, with its hash, into FILE, else on stderr.
    """
    if not _TOKEN_NAME.fullmatch(name):
        raise CommandError("--name is not 1 to 64 of A-Z a-z 0-9 . _ -, first a letter or digit", code=ExitCode.USAGE)
    if sessions is not None and not _SESSIONS.fullmatch(sessions):
        raise CommandError("--sessions is not what a session id can begin with", code=ExitCode.USAGE)
    if expires is not None and not _is_time(expires):
        raise CommandError("--expires is not a time like 2027-01-31T00:00:00Z", code=ExitCode.USAGE)
    token = "lucid_" + base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_RANDOM_BYTES)).decode().rstrip("=")
    roles = ",".join(dict.fromkeys(one.value for one in role))
    line = f"{name} roles={roles} sha256={hashlib.sha256(token.encode()).hexdigest()}"
    limits = {field: value for field, value in (("sessions", sessions), ("expires", expires)) if value is not None}
    line += "".join(f" {field}={value}" for field, value in limits.items())
    if append is None:
        output.note(line)
    else:
        _append(append, name, line)
    if as_json:
        output.document({"name": name, "roles": roles.split(","), "token": token, "line": line, **limits})
    else:
        output.line(token)


def deploy_contract(
    rpc: Annotated[str, typer.Option(metavar="URL", help="A node of the chain.", show_default=False)],
    key_file: Annotated[
        Path, typer.Option(metavar="FILE", help="Private key that pays, 32 bytes in hex.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Put the anchor contract onto a chain, once.

    The key that pays gets no rights over it.
    """
    try:
        from sessions.storage.contract.deploy import DeployError, deploy
    except ImportError as error:
        raise CommandError(
            f"deploying needs a library that is not installed ({error.name})", "pip install 'lucid-sessions[chain]'"
        ) from error
    key = settings.read_text(key_file, "key file")
    try:
        done = deploy(rpc, key)
    except DeployError as error:
        raise CommandError(str(error), "check --rpc, the chain and the key's balance") from error
    answer = {
        "contract": "0x" + done.address.hex(),
        "chain_id": done.chain_id,
        "transaction": "0x" + done.transaction.hex(),
        "gas_used": done.gas_used,
    }
    if as_json:
        output.document(answer)
    else:
        output.fields(answer.items())


def shard_setup(
    mongodb_url_file: Annotated[
        Path, typer.Option(metavar="FILE", help="MongoDB URL of a mongos, with an administrator.", show_default=False)
    ],
    database: Annotated[str, typer.Option(metavar="NAME", help="That of session-storage.")] = "lucid_sessions",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Spread the database over the shards of a MongoDB cluster. Safe to repeat."""
    try:
        from sessions.storage.provision.sharding import ShardingError, shard
    except ImportError as error:
        raise CommandError(
            f"sharding needs a library that is not installed ({error.name})", "pip install 'lucid-sessions[sharding]'"
        ) from error
    url = settings.read_text(mongodb_url_file, "file with the MongoDB URL").strip()
    try:
        plan = shard(url, database, dry_run=dry_run)
    except ShardingError as error:
        raise CommandError(str(error), error.hint) from error
    if as_json:
        output.document({"dry_run": dry_run, **asdict(plan)})
        return
    todo = "to be sharded" if dry_run else "sharded now"
    output.fields(
        [
            ("database", plan.database),
            ("shards", ", ".join(plan.shards)),
            *(
                (step.collection, f"{'sharded already' if step.done else todo} by {_key(step.key)}, {_held(step)}")
                for step in plan.steps
            ),
        ]
    )


def _held(step: "Step") -> str:
    return "new" if step.documents is None else f"documents: {step.documents:,}"


def _key(key: Mapping[str, int | str]) -> str:
    return "{" + ", ".join(f"{field}: {order}" for field, order in key.items()) + "}"


def _is_time(text: str) -> bool:
    try:
        return _TIME.fullmatch(text) is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def _append(path: Path, name: str, line: str) -> None:
    present = settings.read_text(path, "tokens file") if path.exists() else ""
    if any(entry.split()[:1] == [name] for entry in present.splitlines()):
        raise TargetTakenError(f"{path} has a token named {name} already", "choose another name")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(("" if not present or present.endswith("\n") else "\n") + line + "\n")
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror}") from error
