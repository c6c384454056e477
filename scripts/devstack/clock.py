"""The wall clock of a service's host, for tests that move it: libfaketime, which reads how far off it is from a file.

The monotonic clock goes on as it does when an operator, or NTP, sets the wall clock.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LIBRARY: Final = "lib/*/faketime/libfaketimeMT.so.1"
"""Below /usr; the folder in between is the machine's architecture."""


def problem() -> str:
    """Why no clock can be moved here; empty when one can."""
    return "" if _library() else "libfaketime not found (apt-get install libfaketime)"


def _library() -> Path | None:
    return next(Path("/usr").glob(_LIBRARY), None)


@dataclass(frozen=True, slots=True)
class HostClock:
    """A clock whose distance from the true time is in `file`, which is read again once a second.

    Not each time that somebody looks: that is thousands of times a second in a service that works.
    """

    file: Path

    def environment(self) -> dict[str, str]:
        """What a process gets in its environment to live by this clock, which is right at first."""
        library = _library()
        assert library is not None, problem()
        self.leap(0)
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }

    def leap(self, seconds: float) -> None:
        """Set it to so many seconds before (less than 0) or after the true time."""
        written = self.file.with_suffix(".new")
        written.write_text(f"{seconds:+.0f}\n")
        written.replace(self.file)  # so that nobody reads half of it
