"""What is served below /console, and with which headers."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sessions.runtime.settings import ConfigurationError
from sessions.storage.console import site
from sessions.storage.settings import StorageSettings
from tests.unit.runtime.apps import app_of, client_of

PROCESSOR = "https://desk.example:8085"
STATIC = Path(site.__file__).parent / "static"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_of(site.router(site.Site(PROCESSOR)))) as one:
        yield one


def _policy(answer: httpx.Response) -> dict[str, str]:
    text = answer.headers["content-security-policy"]
    return dict(part.strip().partition(" ")[::2] for part in text.split(";"))


async def test_every_file_comes_with_its_type_and_the_headers(client: httpx.AsyncClient) -> None:
    types = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
    files = [path for path in STATIC.iterdir() if path.suffix != ".html"]
    assert len(files) > 15
    for path in files:
        answer = await client.get(f"/console/{path.name}")
        assert (answer.status_code, answer.content) == (200, path.read_bytes())
        assert answer.headers["content-type"] == types[path.suffix]
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "script-src" not in answer.headers["content-security-policy"]  # it is no page


@pytest.mark.parametrize(
    ("path", "page", "connect"),
    [
        ("/console", "index.html", f"'self' {PROCESSOR}"),
        ("/console/", "index.html", f"'self' {PROCESSOR}"),
        ("/console/verify", "verify.html", "http: https:"),
    ],
)
async def test_the_pages_and_what_they_may(client: httpx.AsyncClient, path: str, page: str, connect: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.content) == (200, (STATIC / page).read_bytes())
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert len(answer.headers.get_list("content-security-policy")) == 1
    assert _policy(answer) == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "media-src": "blob:",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "connect-src": connect,
    }
    # Nothing that such a policy would have to be loosened for, and nothing from elsewhere.
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|https?://", answer.text)


def test_no_script_makes_markup_or_code_of_text() -> None:
    for path in STATIC.glob("*.js"):
        code = re.sub(r"^\s*(//|\*|/\*).*$", "", path.read_text(), flags=re.MULTILINE)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", code), (
            path.name
        )


async def test_without_a_processor_the_page_reaches_nothing_but_its_service() -> None:
    async with client_of(app_of(site.router(site.Site(None)))) as client:
        assert _policy(await client.get("/console"))["connect-src"] == "'self'"
        assert (await client.get("/console/config.json")).json() == {"processor_url": None}


async def test_the_page_is_told_where_the_processor_is(client: httpx.AsyncClient) -> None:
    answer = await client.get("/console/config.json")
    assert json.loads(answer.content) == {"processor_url": PROCESSOR}
    assert answer.headers["content-type"] == "application/json"


async def test_what_a_browser_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    tag = (await client.get("/console/app.js")).headers["etag"]
    assert tag == f'"{hashlib.sha256((STATIC / "app.js").read_bytes()).hexdigest()[:32]}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get("/console/app.js", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await client.get("/console/app.js", headers={"if-none-match": '"other"'})).status_code == 200
    head = await client.head("/console/app.js")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "site.py",
            "index.html",
            "..",
            "../site.py",
            "..%2fsite.py",
            "%2e%2e/site.py",
            "static/app.js",
            "app.js/",
            "app.js%00",
        ),
        *("/etc/passwd", "%2fetc%2fpasswd", "APP.JS", "none.js", "%"),
    ],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/console/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_nothing_can_be_sent_there(client: httpx.AsyncClient) -> None:
    answer = await client.post("/console", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")


def _settings(url: str) -> StorageSettings:
    return StorageSettings(tokens_file=Path("tokens"), console_processor_url=url)


@pytest.mark.parametrize(
    ("url", "origin"), [("", None), (PROCESSOR, PROCESSOR), ("http://10.0.0.1:8085/", "http://10.0.0.1:8085")]
)
def test_where_the_processor_is(url: str, origin: str | None) -> None:
    assert _settings(url).processor_origin() == origin


@pytest.mark.parametrize(
    "url",
    ["*", "desk.example", "https://desk.example/path", "https://a; script-src *", "ftp://a", "https://a,https://b"],
)
def test_a_place_that_is_none_ends_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^CONSOLE_PROCESSOR_URL: give an address"):
        _settings(url).processor_origin()
