"""Problem details (RFC 9457): how errors leave a service."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from sessions.core.errors import CoreError, IndexOutOfRangeError, InvalidSessionIdError
from sessions.runtime import audit
from sessions.runtime.errors import PROBLEMS, DomainError
from sessions.runtime.log import request_id

MEDIA_TYPE = "application/problem+json"
_DOCUMENTATION = "urn:lucid-sessions:problem:"
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large", 415: "unsupported-media-type"}


class Problem(BaseModel):
    """A problem body; some codes add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def response(error: DomainError) -> Response:
    """The HTTP answer for a domain error."""
    status, title = PROBLEMS[error.code]
    body = {
        "type": _DOCUMENTATION + error.code,
        "title": title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id(),
        **error.members,
    }
    headers = {}
    if status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = 'Bearer realm="lucid-sessions"'
    if error.code == "range-not-satisfiable" and "total_bytes" in error.members:
        headers["Content-Range"] = f"bytes */{error.members['total_bytes']}"  # RFC 9110 section 15.5.17
    if "accept_encoding" in error.members:
        headers["Accept-Encoding"] = error.members["accept_encoding"]  # RFC 9110 section 12.5.3
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


def from_core(error: CoreError) -> DomainError:
    """The domain error for what the core finds wrong with input."""
    match error:
        case InvalidSessionIdError():
            return DomainError("invalid-session-id", str(error))
        case IndexOutOfRangeError():
            return DomainError("index-out-of-range", str(error))
        case _:
            return DomainError("invalid-request", str(error))


def answer(request: Request, error: DomainError | CoreError) -> Response:
    """The answer to a request that was refused, or failed; if that is of interest, it leaves an audit event."""
    problem = from_core(error) if isinstance(error, CoreError) else error
    audit.of(request).refused(request.scope, problem.code)
    return response(problem)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError | CoreError)
    return answer(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return answer(request, DomainError("invalid-request", f"{where or 'body'}: {first['msg']}"))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = answer(request, DomainError(_BY_STATUS.get(error.status_code, "invalid-request"), str(error.detail)))
    for name, value in (error.headers or {}).items():
        found.headers[name] = value
    if error.status_code == 405 and (methods := _methods(request)):  # noqa: PLR2004
        found.headers["Allow"] = ", ".join(sorted(methods))
    return found


def _methods(request: Request) -> set[str]:
    """What the document has for the request's path: the framework names the methods of the first route only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    return {
        method.upper()
        for template, operations in paths.items()
        if compile_path(template)[0].match(request.url.path)
        for operation in operations
        for method in ((operation, "head") if operation == "get" else (operation,))
    }


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(DomainError, _ours)
    app.add_exception_handler(CoreError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The entries of a route's OpenAPI document for the problems that it can answer with."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in sorted(names)),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in by_status.items()
    }
