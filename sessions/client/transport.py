"""One service over HTTP: requests with retries, error answers as errors, bodies of bounded size."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final, TypeVar

import httpx

from sessions.client.errors import AnswerError, BadAnswerError, ClientError, UnreachableError, from_answer
from sessions.client.proxies import through_proxies
from sessions.client.retry import RetryPolicy, retrying
from sessions.client.urls import checked_url
from sessions.core.errors import CoreError
from sessions.core.types import session_id

MAX_JSON_BYTES: Final = 16 * 1024 * 1024
_MAX_PROBLEM_BYTES: Final = 1024 * 1024
_TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0, pool=None)

T = TypeVar("T")


class Transport:
    """The way to one service, `what`. `base_url` is such as `http://127.0.0.1:8085`."""

    def __init__(
        self, what: str, base_url: str, token: str | None, policy: RetryPolicy, *, connections: int = 16
    ) -> None:
        headers = {"User-Agent": "lucid-sessions-client", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._policy = policy
        url = checked_url(base_url, what)
        self._base_url = f"{url.scheme}://{url.netloc.decode()}"
        try:
            self._http = through_proxies(
                lambda: httpx.AsyncClient(
                    base_url=url,
                    headers=headers,
                    # Without TLS there is nothing to verify, and reading the certificates takes longer than a question.
                    verify=url.scheme == "https",
                    timeout=_TIMEOUT,
                    limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                )
            )
        except UnicodeEncodeError:
            raise ClientError("the token holds characters that no token has", "check the token") from None

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def json(self, method: str, path: str, read: Callable[[Any, int], T], **request: Any) -> T:
        """Send a request, with retries, and read its JSON answer with `read(value, status)`.

        Raises:
            AnswerError: an error answer.
            BadAnswerError: not JSON, or not what `read` reads.
            UnreachableError: no answer in the time given for retries.
        """
        body, status = await self.body(method, path, MAX_JSON_BYTES, **request)
        try:
            return read(json.loads(body), status)
        except (CoreError, ValueError, RecursionError) as error:
            raise BadAnswerError(
                f"{self._base_url} gave an answer that is not what it should be: {error}", "is this the right service?"
            ) from error

    async def body(self, method: str, path: str, max_bytes: int, **request: Any) -> tuple[bytes, int]:
        """Send a request, with retries, and read its whole body, of at most `max_bytes`.

        Raises:
            AnswerError, BadAnswerError, UnreachableError: as with `json`.
        """

        async def attempt() -> tuple[bytes, int]:
            async with self.stream(method, path, **request) as answer:
                return await _bounded(answer, max_bytes, self._base_url), answer.status_code

        return await retrying(self._policy, attempt)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """Send a request once, and give the answer, its body still to be read.

        Raises:
            AnswerError: an error answer.
            BadAnswerError: a redirect, which no service of ours sends.
            UnreachableError: the connection failed, also when that happens while the body is read.
        """
        try:
            async with self._http.stream(method, path, **request) as answer:
                if answer.is_error:
                    raise await _error(answer)
                if not answer.is_success:
                    raise BadAnswerError(
                        f"{self._base_url} answered {answer.status_code}", "give the URL of the service itself"
                    )
                yield answer
        except httpx.TimeoutException as error:
            raise UnreachableError(f"{self._base_url} did not answer in time", _HINT) from error
        except httpx.LocalProtocolError:
            # Its words would quote the header that holds the token.
            raise ClientError(f"the request to {self._base_url} cannot be sent", "check the token") from None
        except httpx.HTTPError as error:
            raise UnreachableError(f"cannot reach {self._base_url}: {_words(error)}", _HINT) from error


class OneStorage:
    """A client that may have been told where session-storage is."""

    _storage_or_none: Transport | None

    @property
    def _storage(self) -> Transport:
        if self._storage_or_none is None:
            raise ClientError("this needs session-storage, and no storage_url was given", "set LUCID_STORAGE_URL")
        return self._storage_or_none


_HINT = "is the service running, and is its URL right?"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _bounded(answer: httpx.Response, max_bytes: int, base_url: str) -> bytes:
    parts, size = [], 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > max_bytes:
            raise BadAnswerError(f"{base_url} answered with more than {max_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


async def _error(answer: httpx.Response) -> AnswerError:
    problem: Mapping[str, Any] = {}
    try:
        value = json.loads(await _bounded(answer, _MAX_PROBLEM_BYTES, ""))
        problem = value if isinstance(value, dict) else {}
    except (ValueError, RecursionError, BadAnswerError):
        # A proxy's HTML page says no more than its status does.
        problem = {}
    error = from_answer(answer.status_code, problem, answer.headers.get("X-Request-ID", ""))
    error.retry_after_seconds = _retry_after(answer.headers.get("Retry-After", ""))
    return error


def _retry_after(value: str) -> float:
    """Seconds to wait, from either form of the header (RFC 9110 section 10.2.3); 0 when there is none."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return 0.0


def session_path(name: str) -> str:
    """Path of a session at either service.

    Raises:
        InvalidSessionIdError: it is no session id, so it is not sent.
    """
    return f"/api/v1/sessions/{session_id(name)}"
