"""Where results go: new files that are complete or absent, or a device, a pipe or an open descriptor by its name."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeAlias

from sessions.client.errors import TargetError, TargetTakenError

OWNER_ONLY: Final = 0o600
"""Mode of files that hold plaintext."""
ANYBODY: Final = 0o666
"""Mode of files that hold nothing secret, before the process's umask."""
_DESCRIPTOR: Final = re.compile(r"(?:/dev/fd|/proc/self/fd)/(\d{1,9})")
_STANDARD: Final = {"/dev/stdout": 1, "/dev/stderr": 2}

Out: TypeAlias = str | os.PathLike[str] | BinaryIO


class Sink(Protocol):
    """Takes bytes."""

    def __call__(self, data: bytes, /) -> object:
        """Write all of them."""


@contextmanager
def open_out(out: Out, *, overwrite: bool = False, mode: int = OWNER_ONLY) -> Iterator[Sink]:
    """Yield a writer into a file object, or into what a path names.

    A device, a pipe and a descriptor such as `/dev/stdout` are written into. Anything else becomes a new file, which
    takes its name only when it is complete. No link is followed.

    Raises:
        TargetTakenError: the file exists and `overwrite` is False.
        TargetError: it cannot be written, it is a link, or it is another user's pipe.
    """
    if not isinstance(out, (str, os.PathLike)):
        yield _guarded(out)
        out.flush()
        return
    target = Path(out)
    stream = _stream(target)
    if stream is not None:
        with stream:
            yield _guarded(stream)
        return
    if target.exists() and not overwrite:
        raise TargetTakenError(f"{target} exists already", "choose another name")
    part = target.with_name(target.name + ".part")
    file = create(part, mode)
    try:
        with file:
            yield _guarded(file)
            with _reported(target):
                file.flush()
                os.fsync(file.fileno())
        with _reported(target):
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def create(path: Path, mode: int = OWNER_ONLY) -> BinaryIO:
    """Create a file and open it for writing. What has its name, such as an earlier attempt, is deleted, not followed.

    Raises:
        TargetError: it cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _reported(path):
        path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, flags, mode), "wb")


def _stream(target: Path) -> BinaryIO | FileIO | None:
    """Open what is not a file: a device, a pipe, or a descriptor of this process by its name; else return None."""
    name = str(target)
    number = _STANDARD.get(name)
    if number is None and (found := _DESCRIPTOR.fullmatch(name)):
        number = int(found[1])
    with _reported(target):
        if number is not None:
            return os.fdopen(os.dup(number), "wb", buffering=0)
        try:
            found_there = target.lstat()
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(found_there.st_mode):
            raise TargetError(f"{target} is a link", "give the name of the file itself")
        if stat.S_ISREG(found_there.st_mode) or stat.S_ISDIR(found_there.st_mode):
            return None
        _require_own(target, found_there)
        file = os.fdopen(os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb", buffering=0)
    try:
        _require_own(target, os.fstat(file.fileno()))
    except TargetError:
        file.close()
        raise
    return file


def _require_own(target: Path, found: os.stat_result) -> None:
    """Refuse another user's pipe: somebody may have put it where a file was expected, to read what comes.

    Raises:
        TargetError: it is one.
    """
    if stat.S_ISFIFO(found.st_mode) and found.st_uid not in (os.geteuid(), 0):
        raise TargetError(f"{target} is a pipe that belongs to another user", "choose another name")


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TargetError(f"cannot write {target}: {error.strerror}") from error


def _guarded(file: BinaryIO | FileIO) -> Sink:
    def write(data: bytes) -> None:
        left = data
        try:
            while left:
                written = file.write(left)  # a descriptor may take a part; some file objects do not say
                left = left[len(left) if written is None else written :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TargetError(f"cannot write the recording: {error.strerror or error}") from error

    return write
