"""The folder of a stack: held by one script at a time, and cleared of nothing but the stack's own files."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

MARKER: Final = ".lucid-stack"


class BusyError(RuntimeError):
    """The folder cannot be used for a stack: somebody else's files, or another start at work."""


@contextlib.contextmanager
def hold(folder: Path, what: str = "start or stop", lock_name: str = ".lock") -> Iterator[None]:
    """Keep a folder to ourselves; the lock ends with the script, however it ends.

    Raises:
        BusyError: another script has it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / lock_name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another {what} is at work in {folder}") from None
        yield


def clear(folder: Path, names: Sequence[str]) -> None:
    """Remove what an earlier stack left.

    Raises:
        BusyError: files of these names are there, and no stack was.
    """
    ours = [folder / name for name in names]
    marker = folder / MARKER
    if not marker.exists() and (found := [path.name for path in ours if path.exists()]):
        raise BusyError(f"{folder} has {', '.join(found)} of somebody else: name another folder")
    marker.touch()
    for path in ours:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
