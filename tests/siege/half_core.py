"""Half a core for the attackers, by a control group (cgroups(7)), version 1 or 2: so they do not take the machine's."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS: Final = 100_000


@contextlib.contextmanager
def half_a_core() -> Iterator[Path | None]:
    """Make a group of processes that together get half a core; gives the file to write process ids to.

    None: this user may make none.
    """
    second = (_ROOT / "cgroup.controllers").exists()
    folder = (_ROOT if second else _ROOT / "cpu") / f"siege-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
        if second:
            (folder / "cpu.max").write_text(f"{_PERIOD_MICROSECONDS // 2} {_PERIOD_MICROSECONDS}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (folder / "cpu.cfs_quota_us").write_text(str(_PERIOD_MICROSECONDS // 2))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        yield None
        return
    try:
        yield folder / "cgroup.procs"
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def join(procs: Path) -> None:
    """Have this process join a group."""
    procs.write_text(str(os.getpid()))
