"""HTTP clients that follow the proxy settings of the environment, and name the variable that cannot be used."""

import os
from collections.abc import Callable
from typing import Final, TypeVar

import httpx

from sessions.client.errors import ClientError

T = TypeVar("T")
_PROXIES: Final = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_EXCEPTIONS: Final = "NO_PROXY"


def through_proxies(make: Callable[[], T]) -> T:
    """Return the client that `make` makes.

    Raises:
        ClientError: a proxy variable cannot be used; its value is not quoted, as it may hold a password.
    """
    try:
        return make()
    except UnicodeEncodeError:
        raise  # a header of the caller
    except (ValueError, httpx.InvalidURL, ImportError) as error:
        name = _unusable()
        if name is None:
            raise
        why = "SOCKS proxies are not supported" if isinstance(error, ImportError) else "it cannot be read"
        raise ClientError(f"{name} of the environment: {why}", f"correct {name}, or unset it") from None


def _unusable() -> str | None:
    """Return the name of the variable that cannot be used, as it is set; None when all can."""
    for upper in _PROXIES:
        for name in (upper.lower(), upper):
            if (value := os.environ.get(name)) and not _is_proxy(value if "://" in value else f"http://{value}"):
                return name
    return next((name for name in (_EXCEPTIONS.lower(), _EXCEPTIONS) if os.environ.get(name)), None)


def _is_proxy(value: str) -> bool:
    try:
        httpx.Client(proxy=value, trust_env=False).close()
    except (ValueError, httpx.InvalidURL, ImportError):
        return False
    return True
