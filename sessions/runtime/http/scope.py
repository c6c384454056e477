"""A request as ASGI describes it to an application."""

import asyncio
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from sessions.runtime.http.head import Head


def of_connection(transport: asyncio.Transport) -> Scope:
    """Return what all requests of a connection have in common."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "server": get_local_addr(transport),
        "client": get_remote_addr(transport),
        "scheme": "https" if is_ssl(transport) else "http",
        "root_path": "",
    }


def of_request(common: Scope, head: Head, state: dict[str, Any]) -> Scope:
    """Return the scope of one request; `state` is the application's."""
    return {
        **common,
        "http_version": head.version,
        "method": "GET" if head.method == "HEAD" else head.method,  # the answer's body is left out
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "headers": _without_range(head) if head.method == "HEAD" else head.headers,
        "state": state.copy(),
    }


def _without_range(head: Head) -> list[tuple[bytes, bytes]]:
    """Return the fields without Range, which has no meaning for HEAD (RFC 9110 section 14.2)."""
    return [(name, value) for name, value in head.headers if name != b"range"]
