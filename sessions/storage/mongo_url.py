"""Options of the database's URL: those that would weaken a promise are overridden, or refused by name.

The URL says where MongoDB is and who we are. How it is used is the service's business: what is acknowledged is on the
disks of a majority, what decides is read from the primary, and each call ends in time. Options that are in neither
table weaken nothing; tests/unit/storage/test_database_url.py has all of them.
"""

from collections.abc import Mapping
from typing import Any, Final

from pymongo.errors import PyMongoError
from pymongo.uri_parser import split_options

SELECT_SERVER_MS: Final = 5_000
"""Longest time to find a server, and to connect to it, in milliseconds."""
OPERATION_MS: Final = 20_000
"""Longest time for an operation, in milliseconds."""
_HEARTBEAT_MS: Final = 10_000
_CONNECTIONS: Final = 32

OVERRIDES: Final[Mapping[str, Any]] = {
    "appname": "session-storage",
    "serverSelectionTimeoutMS": SELECT_SERVER_MS,
    "connectTimeoutMS": SELECT_SERVER_MS,
    "timeoutMS": OPERATION_MS,
    "socketTimeoutMS": OPERATION_MS,
    "waitQueueTimeoutMS": OPERATION_MS,
    "maxPoolSize": _CONNECTIONS,
    "minPoolSize": 0,
    "retryWrites": True,
    "retryReads": True,
    "heartbeatFrequencyMS": _HEARTBEAT_MS,
    "serverMonitoringMode": "auto",
    "compressors": [],
}
"""Arguments of the client, which go before the URL's options. Read preference and concerns are the database's."""

_CHECKS: Final = "MongoDB's certificate would not be checked: remove it, and name its authority with tlsCAFile"
REFUSED: Final[Mapping[str, str]] = {
    "directConnection": "one member would be asked even when it is not the primary: remove it, and name all members",
    "tlsInsecure": _CHECKS,
    "tlsAllowInvalidCertificates": _CHECKS,
    "tlsAllowInvalidHostnames": _CHECKS,
}
"""Options that must not be true, and why."""


def require_harmless(url: str) -> None:
    """Refuse a URL with an option that would weaken a promise and cannot be overridden.

    Options are read as the driver reads them (MongoDB's "Connection String" specification): names in any case, `&` or
    `;` between them, of several with one name the last.

    Raises:
        ValueError: names the option and says what to do; quotes nothing else of the URL.
    """
    _, _, query = url.partition("?")
    if not query:
        return
    try:
        given = split_options(query, validate=True, warn=True)
    except (PyMongoError, ValueError):
        return  # the driver says what is wrong
    for name, why in REFUSED.items():
        if given.get(name) is True:
            raise ValueError(f"{name}=true is refused: {why}")
