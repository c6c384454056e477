"""Something else at STORAGE_URL, or before it: it never passes for storage's word, and chunks go to the spool."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response

from sessions.core.key_ring import WrappedDek
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.promises import Promises
from sessions.processor.reporting import Identity, Reporter
from sessions.processor.spool import Spool
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spooling import Spooling
from sessions.processor.storage_answers import Replacement
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import fits_spool, is_transient
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.errors import DomainError
from tests.unit.processor.servers import TOKEN, Script, serving
from tests.unit.processor.spools import MIB, segments_in
from tests.unit.storage.chunks import DEK_ID, House, event

A = SessionId("a")
_KEY = WrappedDek(DEK_ID, "k", b"wrapped")
_HTML = "<html><body>Sign in to the network</body></html>"


def _page(status: int, **headers: str) -> Response:
    return Response(_HTML, status, {name.replace("_", "-"): value for name, value in headers.items()}, "text/html")


def _problem(status: int, code: str) -> Response:
    return JSONResponse({"code": code, "detail": "no", "status": status}, status, media_type="application/problem+json")


IMPOSTORS = {
    "a captive portal": _page(200),
    "a portal that speaks JSON": JSONResponse({"status": "ok"}),
    "JSON with members that are ours": JSONResponse({"status": "ok", "keys": [], "results": [], "stored": 9}),
    "nothing": Response(b"", 204),
    "moved": _page(301, location="https://elsewhere.example/"),
    "moved for now": _page(307, location="/login"),
    "not modified": Response(b"", 304),
    "another server's 400": _page(400),
    "another server's 401": _page(401, www_authenticate="Basic"),
    "another server's 403": _page(403),
    "another server's 404": _page(404),
    "a route that is none": _problem(404, "not-found"),
    "another server's 405": _page(405, allow="GET"),
    "a proxy's 407": _page(407),
    "a proxy's 413": _page(413),
    "a proxy's 429": _page(429, retry_after="1"),
    "a proxy's 500": _page(500),
    "a proxy's 502": _page(502),
    "a proxy's 503": _page(503, retry_after="1"),
    "a proxy's 504": _page(504),
}
"""By what they are; each answers everything alike."""


async def _error(work) -> DomainError:
    with pytest.raises(DomainError) as caught:
        await work
    return caught.value


@pytest.fixture(params=list(IMPOSTORS))
async def client(request: pytest.FixtureRequest) -> AsyncIterator[StorageClient]:
    async with serving(Script([IMPOSTORS[request.param]])) as url, StorageClient(url, TOKEN, 5) as one:
        yield one


async def test_no_answer_of_something_else_is_a_verdict(client: StorageClient) -> None:
    calls = (
        client.open(A, None, _KEY),
        client.add_key(A, _KEY),
        client.session(A),
        client.metadata_sha256(A),
        client.submit([b"envelope"]),
        client.seal(A, None),
        client.report("p", {}),
        client.say_goodbye("p", {}),
        client.chunks(A, 0, 1),
        client.envelopes(A, 0, 1),
        client.shred(A, "admin"),
        client.key_counts(),
        client.outdated_rings("k", None, None, 1),
        client.replace_keys([Replacement(A, _KEY, _KEY)]),
        client.write([event(0)]),
    )
    for call in calls:
        name = call.__name__
        try:
            await call
        except DomainError as caught:
            error = caught
        else:
            pytest.fail(f"{name} took it for session-storage's word")
        assert (error.code, is_transient(error), fits_spool(error)) == ("storage-unavailable", True, True), error.detail


async def test_the_probe_says_what_is_wrong(client: StorageClient) -> None:
    assert await client.reachable() is not None


@pytest.mark.parametrize(
    ("impostor", "words"),
    [
        ("a captive portal", "STORAGE_URL does not answer like session-storage (HTTP 200, text/html)"),
        ("moved", "STORAGE_URL redirects (HTTP 301)"),
        (
            "another server's 404",
            "STORAGE_URL does not answer like session-storage (HTTP 404, text/html): check its path",
        ),
        (
            "a route that is none",
            "STORAGE_URL does not answer like session-storage (HTTP 404, application/problem+json)",
        ),
        ("a proxy's 502", "session-storage is not ready (HTTP 502)"),
    ],
)
async def test_the_words(impostor: str, words: str) -> None:
    async with serving(Script([IMPOSTORS[impostor]])) as url, StorageClient(url, TOKEN, 5) as client:
        assert words in str(await client.reachable())
        if impostor != "a proxy's 502":
            assert "STORAGE_URL" in (await _error(client.session(A))).detail


async def test_a_proxy_that_refuses_the_size_is_named() -> None:
    async with serving(Script([IMPOSTORS["a proxy's 413"]])) as url, StorageClient(url, TOKEN, 5) as client:
        error = await _error(client.submit([b"x"]))
        assert "before session-storage refuses this size (HTTP 413)" in error.detail


async def test_the_processor_itself_is_not_session_storage() -> None:
    health = {"status": "ok", "service": "chunk-processor", "version": "1", "checks": {"storage": {"status": "ok"}}}
    async with serving(Script([JSONResponse(health)])) as url, StorageClient(url, TOKEN, 5) as client:
        assert "does not answer like session-storage" in str(await client.reachable())


@pytest.mark.parametrize("impostor", list(IMPOSTORS))
async def test_a_spool_is_not_introduced_by_something_else(impostor: str, tmp_path: Path) -> None:
    """B27: `STORAGE_URL=http://storage:8086/api` answers "not-found", as an older session-storage does to a report."""
    async with serving(Script([IMPOSTORS[impostor]])) as url, StorageClient(url, TOKEN, 5) as client:
        spool = Spool(segments_in(tmp_path, MIB), SpoolRoom(8 * MIB, 0))
        spool.open()
        identity = Identity(tmp_path, "host")
        watch = StorageWatch(client.reachable)
        spooling = Spooling(spool, watch, Promises(None), introduced=identity.introduced)
        reporter = Reporter(identity, spooling, client, Acknowledged())
        with pytest.raises(DomainError):
            await reporter.report()
        assert (spooling.introduced, identity.introduced, reporter.older) == (False, False, False)
        await _error(spooling.attempt(client.open(A, None, _KEY)))
        async with asyncio.timeout(5):
            while not watch.away:
                await asyncio.sleep(0.01)
        assert (await _error(spooling.open(A, None, _KEY))).code == "storage-unavailable"
        spooling.introduced = True
        assert spooling.takes(A)
        assert await spooling.open(A, None, _KEY)
        assert await spooling.keep(A, ChunkIndex(0), b"envelope", 1)
        await spool.close()


async def test_a_wrong_path_before_session_storage_itself(house: House, storage_url: str) -> None:
    async with StorageClient(f"{storage_url}/api", TOKEN, 5) as client:
        assert "check its path" in str(await client.reachable())
        for call in (client.session(A), client.report("p", {}), client.submit([b"x"])):
            assert (await _error(call)).code == "storage-unavailable"
    assert json.dumps(list(house.sessions.records)) == "[]"
