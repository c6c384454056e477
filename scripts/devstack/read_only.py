"""A folder whose file system is read-only for a while."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def problem() -> str:
    """Return why a folder cannot be made read-only here; empty when it can."""
    if os.geteuid() != 0:
        return "only root can mount, and give files away"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with read_only(Path(folder)):
                return ""
        except subprocess.CalledProcessError as error:
            return f"mount says: {error.stderr.strip()[:200]}"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a read-only view of the folder in its place.

    Raises:
        CalledProcessError: this user may not mount.
    """
    _run("mount", "--bind", folder, folder)
    try:
        _run("mount", "-o", "remount,bind,ro", folder)
        yield
    finally:
        _run("umount", "-l", folder)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
