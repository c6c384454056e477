"""What a recorder and an auditor call: `AsyncClient` and `Client` for the services, `rpc` and `verifying` without them.

The names below are loaded when they are first used, so that `sessions.client.verifying` loads nothing of the services'
HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessions.client.aio import AsyncClient
    from sessions.client.errors import ClientError
    from sessions.client.retry import RetryPolicy
    from sessions.client.sync import Client

__all__ = ["AsyncClient", "Client", "ClientError", "RetryPolicy"]

_HOMES = {"AsyncClient": "aio", "Client": "sync", "ClientError": "errors", "RetryPolicy": "retry"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
