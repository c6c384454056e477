"""Serves the console: static files, read once at start, and what they need to know of this deployment.

The files need no token; the data does, which the page asks the REST interface for. There are two pages with a policy
each: the console holds a token, and may connect to the services alone; the verifier may connect to whatever node of
the chain an auditor names, and holds no token. Neither may run a script that is not one of these files, nor turn text
into markup (Trusted Types).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from sessions.runtime.errors import DomainError

PATH: Final = "/console"
VERIFY: Final = "verify"
"""The name of the verifier's page."""
_STATIC: Final = Path(__file__).parent / "static"
_PAGES: Final[Mapping[str, str]] = {"": "index.html", VERIFY: "verify.html"}
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; media-src blob:; require-trusted-types-for 'script'; trusted-types 'none'; "
    "connect-src "
)
_ANY_NODE: Final = "http: https:"


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    media_type: str
    headers: Mapping[str, str]


class Site:
    """The files by name; only these are served, so no path leads anywhere else.

    `processor_origin` is where browsers reach chunk-processor, for replays; None: they do not.
    """

    def __init__(self, processor_origin: str | None) -> None:
        own = "'self'" if processor_origin is None else f"'self' {processor_origin}"
        self._files = {
            path.name: _file(path.read_bytes(), _TYPES[path.suffix])
            for path in sorted(_STATIC.iterdir())
            if path.suffix in _TYPES and path.suffix != ".html"
        }
        for name, page in _PAGES.items():
            policy = _POLICY + (_ANY_NODE if name == VERIFY else own)
            self._files[name] = _file((_STATIC / page).read_bytes(), _TYPES[".html"], policy)
        told = json.dumps({"processor_url": processor_origin})
        self._files["config.json"] = _file(told.encode(), "application/json")

    def answer(self, name: str, known: str | None, required: str | None = None) -> Response:
        """Return a file; 304 without it if `known` (If-None-Match) names what it is now.

        Raises:
            DomainError: `not-found`; `precondition-failed` if `required` (If-Match) does not name what it is now.
        """
        file = self._files.get(name)
        if file is None:
            raise DomainError("not-found", f"the console has no such file; it begins at {PATH}")
        if required is not None and not {"*", file.headers["etag"]} & {tag.strip() for tag in required.split(",")}:
            raise DomainError("precondition-failed", "the file is another one now: load it again")
        tags = [tag.strip().removeprefix("W/") for tag in (known or "").split(",")]
        if file.headers["etag"] in tags or tags == ["*"]:
            return Response(status_code=304, headers=dict(file.headers))
        return Response(file.body, media_type=file.media_type, headers=dict(file.headers))


def _file(body: bytes, media_type: str, policy: str | None = None) -> _File:
    # Kept by browsers, and asked for again each time: after an update no page runs with another one's scripts.
    headers = {"cache-control": "no-cache", "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    if policy is not None:
        headers["content-security-policy"] = policy
    return _File(body, media_type, headers)


def router(site: Site) -> APIRouter:
    """`/console` and all below it; none of it is a part of the REST interface, so the document does not list it."""
    routes = APIRouter(prefix=PATH, include_in_schema=False)

    async def file(request: Request) -> Response:
        known, required = (request.headers.get(name) for name in ("if-none-match", "if-match"))
        return site.answer(request.path_params.get("name", ""), known, required)

    for path in ("", "/", "/{name}"):
        routes.add_api_route(path, file, methods=["GET", "HEAD"])
    return routes
