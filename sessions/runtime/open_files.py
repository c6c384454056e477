"""The limit on open files of this process. Each connection is an open file."""

import resource
from typing import Final

import structlog

OWN_FILES: Final = 256
"""Open files that a service needs besides its clients' connections: its own connections, spool and logs."""
_WANTED_FILES: Final = 65_536
_log = structlog.get_logger()


def connections_max(wanted: int) -> int:
    """Raise the limit on open files as far as it may be, and return how many connections it has room for.

    `wanted` is the setting; less is logged, with what to do about it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    room = wanted if soft == resource.RLIM_INFINITY else max(1, soft - OWN_FILES)
    if room < wanted:
        _log.warning("few_open_files", limit=soft, connections_max=room, setting=wanted, hint="raise ulimit nofile")
    return min(room, wanted)
