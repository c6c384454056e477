"""`scripts/init-secrets`: make secrets/ and .env for docker-compose.pi.yml.

Never overwrites; run again, it makes what is missing. Needs nothing but Python and, for the recovery key pair, the
chunk-processor image. Run as root, since each file belongs to the one user who may read it: 65532 is our services' in
their containers, 999 MongoDB's in its own.
"""

import argparse
import base64
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SERVICES_UID: Final = 65532
MONGODB_UID: Final = 999
PEOPLE_ROLES: Final = ("record", "replay", "audit", "admin")
_RECOVERY_KINDS: Final = ("lucid-recovery-private-v1", "lucid-recovery-public-v1")
_VERSION = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)


class Refused(Exception):  # noqa: N818 - it is the answer, not a fault
    """What is wrong, and what to do."""


class Maker:
    """Writes files that are not there yet, each for one reader."""

    def __init__(self, folder: Path, operator: tuple[int, int]) -> None:
        self.folder, self.operator = folder, operator
        self.made: list[str] = []

    def directory(self, path: Path) -> None:
        """Make a folder that only the person who runs this can look into."""
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True)
            os.chown(path, *self.operator)

    def missing(self, *names: str) -> bool:
        """Whether none is there.

        Raises:
            Refused: some are, some are not, and they belong together.
        """
        there = [name for name in names if (self.folder / name).exists()]
        if there and len(there) < len(names):
            lost = ", ".join(sorted(set(names) - set(there)))
            raise Refused(
                f"{self.folder} has {', '.join(there)} but not {lost}, which was made with it: put it back from your "
                f"backup, or, if it is lost for good, move {', '.join(there)} away and run this again"
            )
        return not there

    def write(self, name: str, text: str, uid: int | None = None) -> None:
        """Write a file that its reader alone can read; `uid` None is for the person who runs this."""
        path = self.folder / name
        owner = self.operator if uid is None else (uid, uid)
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
            os.fchown(file.fileno(), *owner)
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)  # fails, rather than overwrites, if it came to be there meanwhile
        new.unlink()
        self.made.append(name)


def make_kek(maker: Maker) -> None:
    """The key-encryption key: wraps the key of every session."""
    if maker.missing("kek"):
        name = f"kek-{time.strftime('%Y%m%d')}-{secrets.token_hex(3)}"
        maker.write("kek", f"{name}:{base64.b64encode(secrets.token_bytes(32)).decode()}", SERVICES_UID)


def make_tokens(maker: Maker) -> None:
    """A bearer token a role, and chunk-processor's own for session-storage."""
    # The tokens of people are meant to be handed out, so their absence is no loss.
    if not maker.missing("tokens", "storage-token"):
        return
    lines = ["# name, roles, SHA-256 of the token"]
    for role in (*PEOPLE_ROLES, "processor"):
        token = "lucid_" + secrets.token_urlsafe(32)
        name = "chunk-processor" if role == "processor" else f"first-{role}"
        lines.append(f"{name} roles={role} sha256={hashlib.sha256(token.encode()).hexdigest()}")
        if role == "processor":
            maker.write("storage-token", token, SERVICES_UID)
        else:
            (maker.folder / "operator" / f"{role}-token").unlink(missing_ok=True)  # of a run that did not get far
            maker.write(f"operator/{role}-token", token)
    maker.write("tokens", "\n".join(lines), SERVICES_UID)


def make_database_passwords(maker: Maker) -> None:
    """MongoDB's administrator, and session-storage's own user."""
    if maker.missing("mongodb-root-password", "mongodb-admin-url", "mongodb-url"):
        root, own = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        maker.write("mongodb-root-password", root, MONGODB_UID)
        maker.write("mongodb-admin-url", f"mongodb://admin:{root}@mongodb:27017/?authSource=admin", SERVICES_UID)
        maker.write("mongodb-url", f"mongodb://session-storage:{own}@mongodb:27017/?authSource=admin", SERVICES_UID)


def make_chain_key(maker: Maker) -> None:
    """The private key that publishes anchors."""
    if maker.missing("chain-key"):
        # Any 32 bytes below the curve's order are a key; a random one is above it once in 2^128.
        maker.write("chain-key", "0x" + secrets.token_hex(32), SERVICES_UID)


def make_recovery_pair(maker: Maker, image: str) -> None:
    """The key pair for the day when the KEK is lost."""
    # The private half is meant to be taken away, so its absence is no loss.
    if (maker.folder / "recovery-public").exists():
        return
    private, public = recovery_pair(image)
    maker.write("operator/recovery-private", private)
    maker.write("recovery-public", public, SERVICES_UID)


def recovery_pair(image: str) -> tuple[str, str]:
    """A key pair of ML-KEM-768 and X25519: made by the checkout's own Python if it was set up, else by the image."""
    module = ["-m", "sessions.processor.recovery"]
    python = ROOT / ".venv" / "bin" / "python"
    in_image = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--entrypoint=/usr/bin/python3",
    ]
    reasons = []
    for command in ([str(python), *module], [*in_image, image, *module]):
        try:
            found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError as error:
            reasons.append(f"{command[0]}: {error.strerror}")
            continue
        lines = found.stdout.splitlines()
        if found.returncode == 0 and [line.partition(":")[0] for line in lines] == list(_RECOVERY_KINDS):
            return lines[0], lines[1]
        reasons.append(f"{command[0]}: {(found.stderr.strip().splitlines() or ['no key'])[-1]}")
    raise Refused(
        f"the recovery key pair needs the image {image}: run scripts/build-images or pull it, then run this again "
        f"({'; '.join(reasons)})"
    )


def make_env(operator: tuple[int, int]) -> bool:
    """Copy .env.example to .env, unless there is one."""
    target = ROOT / ".env"
    if target.exists():
        return False
    shutil.copyfile(ROOT / ".env.example", target)
    target.chmod(0o644)
    os.chown(target, *operator)
    return True


ADVICE: Final = """
What to do with them
  Back up {folder}/ now, onto something that is not this machine.
    kek                  without it no recording can ever be read again
    mongodb-*, tokens    without them the services do not start on the old data
    chain-key            pays for anchors; those made stay valid without it
  Take operator/recovery-private off this machine and delete it here: it opens
    every recording, and is there for the day when the kek is lost. Keep it on
    paper or on a drive in a safe, apart from the backup.
  operator/*-token are for people: a recorder gets record-token, an auditor
    audit-token. The services know only their SHA-256.
    More of them: lucid-sessions tokens new
"""


def default_image() -> str:
    """The image of this checkout's version."""
    version = _VERSION.search((ROOT / "sessions" / "__init__.py").read_text())
    assert version is not None
    registry = os.environ.get("LUCID_REGISTRY", "pickme")
    return f"{registry}/lucid-chunk-processor:{os.environ.get('LUCID_VERSION', version[1])}"


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing; the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/init-secrets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", type=Path, default=ROOT / "secrets", help="where to (default: secrets)")
    parser.add_argument("--image", default=default_image(), help="chunk-processor's image (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if os.geteuid() != 0:
            raise Refused("run this as root (sudo scripts/init-secrets): each file goes to the user of its container")
        operator = (int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))
        maker = Maker(options.dir, operator)
        maker.directory(maker.folder)
        maker.directory(maker.folder / "operator")
        for make in (make_kek, make_tokens, make_database_passwords, make_chain_key):
            make(maker)
        make_recovery_pair(maker, options.image)
        env_made = make_env(operator)
    except Refused as refused:
        print(f"init-secrets: {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"init-secrets: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    inside = maker.folder.resolve().is_relative_to(ROOT)
    shown = os.path.relpath(maker.folder, ROOT) if inside else str(maker.folder)
    if not maker.made:
        print(f"init-secrets: {shown}/ is complete; nothing was changed")
    else:
        print(f"init-secrets: made in {shown}/:")
        print(textwrap.fill(", ".join(maker.made), 80, initial_indent="  ", subsequent_indent="  "))
        print(ADVICE.format(folder=shown))
    if env_made:
        print("init-secrets: made .env from .env.example. It has a development chain on, which")
        print("  proves nothing to others: see docs/operations.md for a real one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
