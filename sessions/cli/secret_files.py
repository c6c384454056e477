"""Files that hold a secret, or guard one: never overwritten, and never half written."""

import os
import stat
from pathlib import Path
from typing import Final

from sessions.client.errors import TargetError, TargetTakenError

OWNER_ONLY: Final = 0o600
READABLE: Final = 0o644


def write_new(path: Path, text: str, mode: int = OWNER_ONLY) -> None:
    """Write a new file; what is there is never touched.

    Raises:
        TargetTakenError: there is something already.
        TargetError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise TargetTakenError(f"{path} exists already", "a key is never overwritten: choose another name") from error
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, text: str) -> None:
    """Put another content in a file's place, in one step, with the same mode: a reader sees the old one or the new one.

    Raises:
        TargetError: it cannot be written.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror}") from error
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    write_new(fresh, text, mode)
    fresh.chmod(mode)  # the process's umask may have taken some of it
    fresh.replace(path)
