"""Small files that last, written beside their place, flushed, and renamed; and files that leave nothing."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from sessions.core.types import Buffer


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it has its old content or the new one.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    part.rename(path)
    sync_folder(path.parent)


def erase(path: Path) -> None:
    """Overwrite a file with zeros and delete it: what was shredded must not stay on the disk.

    Raises:
        OSError: it is perhaps still there.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.pwrite(file, bytes(os.fstat(file).st_size), 0)
        os.fdatasync(file)
    finally:
        os.close(file)
    path.unlink()


def write_all(file: int, parts: Sequence[Buffer]) -> int:
    """Write all parts, without a copy; return how many bytes that were.

    Raises:
        OSError: some of it may have been written.
    """
    left = [memoryview(part).cast("B") for part in parts]
    total = sum(map(len, left))
    while left:
        written = os.writev(file, left)
        if written == 0 and any(map(len, left)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if left:
            left[0] = left[0][written:]
    return total


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
