"""Points of the write path at which a test ends the process as a power failure would: by SIGKILL, at once.

Ships disabled: without `LUCID_TEST_KILL_POINTS=allowed` there is no way to reach any of it. `LUCID_TEST_KILL_AT` names
the point, and after a colon the pass at which it strikes (1 without one).
"""

import os
import signal
import threading
from enum import StrEnum
from typing import Final

ALLOW: Final = "LUCID_TEST_KILL_POINTS"
AT: Final = "LUCID_TEST_KILL_AT"


class Point(StrEnum):
    """Where."""

    CHUNK_SEALED = "chunk-sealed"
    CHUNK_STORED = "chunk-stored"
    CHUNK_SPOOLED = "chunk-spooled"
    SPOOL_SEGMENT_BEGUN = "spool-segment-begun"
    SPOOL_BEFORE_WRITE = "spool-before-write"
    SPOOL_BEFORE_FSYNC = "spool-before-fsync"
    SPOOL_AFTER_FSYNC = "spool-after-fsync"
    OPENING_SPOOLED = "opening-spooled"
    SEAL_SPOOLED = "seal-spooled"
    DRAIN_BEFORE_OPENING = "drain-before-opening"
    DRAIN_AFTER_OPENING = "drain-after-opening"
    DRAIN_BEFORE_POST = "drain-before-post"
    DRAIN_AFTER_POST = "drain-after-post"
    DRAIN_AFTER_SEAL = "drain-after-seal"
    DRAIN_BEFORE_DROP = "drain-before-drop"


class KillPointError(Exception):
    """The environment names no point that there is, or is not allowed to."""


_armed: Point | None = None
_left = 0
_lock = threading.Lock()


def arm(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Read the environment, once at the start.

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
        _armed, _left = Point(name), int(at_pass or 1)
    except ValueError:
        raise KillPointError(f"{AT}: there is no point {where!r}") from None


def reach(point: Point) -> None:
    """End the process, if this is the point and the pass; else nothing."""
    if _armed is not None and point is _armed:
        _strike()


def _strike() -> None:
    global _left  # noqa: PLW0603 - see above
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
