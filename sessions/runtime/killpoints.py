"""Points of a write path at which a test ends the process as a power failure would: by SIGKILL, at once.

Each service enumerates its own, in its module `killpoints`. They ship disabled: without
`LUCID_TEST_KILL_POINTS=allowed` there is no way to reach any of it. `LUCID_TEST_KILL_AT` names the point, and after a
colon the pass at which it strikes (1 without one).
"""

import os
import signal
import threading
from enum import StrEnum
from typing import Final

ALLOW: Final = "LUCID_TEST_KILL_POINTS"
AT: Final = "LUCID_TEST_KILL_AT"


class KillPointError(Exception):
    """The environment names no point that there is, or is not allowed to."""


_armed: StrEnum | None = None
_left = 0
_lock = threading.Lock()


def arm(points: type[StrEnum], environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Read the environment, once at the start of the service whose points these are.

    Raises:
        KillPointError: a point is named without leave, or there is none of this name.
    """
    global _armed, _left
    where = environment.get(AT)
    if where is None:
        return
    if environment.get(ALLOW) != "allowed":
        raise KillPointError(f"{AT} ends this process in the middle of its work; it is for tests, which set {ALLOW}")
    name, _, at_pass = where.partition(":")
    try:
        _armed, _left = points(name), int(at_pass or 1)
    except ValueError:
        raise KillPointError(f"{AT}: there is no point {where!r}") from None


def reach(point: StrEnum) -> None:
    """End the process, if this is the point and the pass; else nothing."""
    if _armed is not None and point is _armed:
        _strike()


def _strike() -> None:
    global _left  # noqa: PLW0603 - see above
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
