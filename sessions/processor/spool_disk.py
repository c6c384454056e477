"""Knows whether the spool's folder can be written: from what happened last, not from what should be."""

import os
from pathlib import Path
from typing import Final

import structlog

_TRIAL_NAME: Final = "trial"
_TRIAL_BYTES: Final = 4096
_log = structlog.get_logger()


class SpoolDisk:
    """The state of the folder. `problem` says why it cannot be written, and is empty while it can.

    After a failure it is tried with a small file until that succeeds. A folder that is well is never written for this:
    an fsync every few seconds wears a memory card.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problem = ""
        self._has_failed = False

    def failed(self, error: Exception) -> None:
        """Note that something could not be written."""
        self._has_failed = True
        self._enter(_reason(error))

    def wrote(self) -> None:
        """Note that something was written and flushed."""
        self._has_failed = False
        self._enter("")

    def look(self) -> None:
        """Find out how it is now. Blocking; never fails."""
        try:
            if os.statvfs(self._folder).f_flag & os.ST_RDONLY:
                raise OSError(None, "Read-only file system")
            if self._has_failed:
                self._try()
        except OSError as error:
            self._enter(_reason(error))
        else:
            self.wrote()

    def _try(self) -> None:
        path = self._folder / _TRIAL_NAME
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(file, bytes(_TRIAL_BYTES), 0)
            os.fsync(file)
        finally:
            os.close(file)
        path.unlink()

    def _enter(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        if problem and problem != before:
            _log.error("spool_cannot_be_written", setting="SPOOL_DIR", error=problem)
        elif before and not problem:
            _log.info("spool_can_be_written")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
