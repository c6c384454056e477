"""Calls to session-storage: each is an exchange, and what its answer means as an error of our own."""

import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sessions.processor.storage_errors import RequestFailedError, UnheardError
from sessions.processor.wire import Answer, BrokenOffError, NoConnectionError, NoRoomError, WireError
from sessions.runtime.errors import PROBLEMS, DomainError

_REDIRECTS: Final = range(300, 400)
_NOT_FOUND: Final = 404
_TOO_LARGE: Final = 413
_SERVER_ERRORS: Final = range(500, 600)


class NoSuchRouteError(RequestFailedError):
    """What answers has no such route: it is another service, or an older session-storage."""


async def answered(exchange: Callable[[], Awaitable[Answer]], *, once: bool = False) -> Answer:
    """Return the answer to a request. Repeat the request if the connection broke off, unless it is sent `once`.

    Raises:
        DomainError: what session-storage answered; `UnheardError` when it cannot have heard the request.
    """
    repeated = False
    try:
        try:
            response = await exchange()
        except BrokenOffError:  # a connection that was kept may be closed just now: all our requests may be repeated
            if once:
                raise
            repeated = True
            response = await exchange()
    except NoConnectionError as error:
        detail = f"session-storage does not answer ({why(error)})"
        raise (_unavailable(detail) if repeated else UnheardError(detail)) from error
    except NoRoomError:
        raise overloaded("all connections to session-storage are in use") from None
    except WireError as error:
        raise RequestFailedError(f"session-storage does not answer ({why(error)})") from error
    if response.is_success:
        return response
    raise _problem(response)


def why(error: WireError) -> str:
    """Return the reason for an error. For TLS it is OpenSSL's, which tells a wrong authority from a wrong name."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted, {cause.verify_message}: check STORAGE_CA_FILE and STORAGE_URL"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _unavailable(detail: str) -> DomainError:
    return DomainError("storage-unavailable", f"{detail}; repeat the request", retry_after_seconds=1)


def overloaded(detail: str) -> DomainError:
    """Return the error of a request that may succeed when less is in flight."""
    return DomainError("overloaded", f"{detail}; repeat the request later", retry_after_seconds=1)


@contextmanager
def understood() -> Iterator[None]:
    """Take an answer that cannot be read for a failure of this request alone."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RequestFailedError("what answers at STORAGE_URL does not answer like session-storage") from error


def object_of(response: Answer) -> dict[str, Any]:
    """Return an answer's JSON object.

    Raises:
        RequestFailedError: it has none.
    """
    with understood():
        return dict(response.json())


def readiness(response: Answer) -> str | None:
    """Return None for the answer of a session-storage that is ready to `GET /readyz`, else what is wrong.

    Anything may answer 200 at a wrong address: another server, a captive portal, the processor itself.
    """
    if response.status in _SERVER_ERRORS:
        return f"session-storage is not ready (HTTP {response.status})"
    try:
        parts = response.json()["checks"] if response.is_success else None
    except (ValueError, LookupError, TypeError, RecursionError):
        parts = None
    # A processor, too, answers with checks, and one of them is of its session-storage.
    return None if isinstance(parts, dict) and "storage" not in parts else _strange(response)


def _strange(response: Answer) -> str:
    """Return what is to be said of an answer that session-storage does not give."""
    status = response.status
    if status in _REDIRECTS:
        return f"what answers at STORAGE_URL redirects (HTTP {status}): give the URL of session-storage itself"
    if status == _TOO_LARGE:
        return f"a server before session-storage refuses this size (HTTP {status}): raise its limit"
    if status in _SERVER_ERRORS:
        return f"session-storage answered HTTP {status}"
    kind = response.headers.get("content-type", "no content type").partition(";")[0]
    hint = "check its path" if status == _NOT_FOUND else "does it name another server?"
    return f"what answers at STORAGE_URL does not answer like session-storage (HTTP {status}, {kind[:60]}): {hint}"


def _problem(response: Answer) -> DomainError:
    """Return what storage answered as an error of our own."""
    try:
        body = response.json()
        code, detail = str(body["code"]), str(body["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return RequestFailedError(_strange(response))
    if code == "not-found":
        return NoSuchRouteError("session-storage knows no such route: check STORAGE_URL, and update it first")
    if code in ("unauthorized", "forbidden"):
        return _unavailable("session-storage refuses our token: check STORAGE_TOKEN_FILE against its TOKENS_FILE")
    if code == "too-many-requests":  # ours, not the caller's: its token is another
        return overloaded("session-storage limits us")
    if code not in PROBLEMS or code == "internal":
        return RequestFailedError(f"session-storage answered {code!r}")
    known = {"type", "title", "status", "detail", "code", "request_id"}
    members = {name: value for name, value in body.items() if name not in known}
    retry_after = response.headers.get("retry-after", "")
    return DomainError(code, detail, retry_after_seconds=int(retry_after) if retry_after.isdigit() else None, **members)
