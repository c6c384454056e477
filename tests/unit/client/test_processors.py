"""Processors and quarantined entries, and each way in which an answer about them can be wrong."""

from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from sessions.client import AsyncClient, Client
from sessions.client import errors as e
from sessions.client.errors import SealQueuedError
from tests.unit.client.conftest import QUICK
from tests.unit.client.fake import TOKEN, Fake, problem

NAME = "0000000000000004-000000052344"
PROCESSOR = {
    "name": "desk-17-0a1b2c3d",
    "state": "missing",
    "last_report_at": "2026-01-31T10:00:00.000Z",
    "missing_seconds": 12,
    "spooled_entries": 3,
    "spooled_bytes": 4096,
    "spooled_sessions": 1,
    "quarantined_entries": 1,
    "new": 1,
}
ENTRY = {
    "name": NAME,
    "kind": "envelope",
    "session_id": "s",
    "index": 3,
    "entry_bytes": 1024,
    "reason": "conflict",
    "detail": "session-storage answered conflict",
    "by": None,
    "quarantined_at": None,
    "new": 1,
}


def page(cursor: str | None, *entries: dict[str, Any], **members: Any) -> JSONResponse:
    body = {
        "entries": list(entries),
        "next_cursor": cursor,
        "spooled_entries": 2,
        "spooled_bytes": 2048,
        "quarantined_entries": 1,
        "quarantined_bytes": 1024,
        "quarantine_max_bytes": 1024**3,
        "new": 1,
        **members,
    }
    return JSONResponse(body)


async def test_processors(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", "/processors", JSONResponse({"processors": [PROCESSOR]}))
    (one,) = await client.processors()
    assert (one.name, one.state, one.missing_seconds, one.quarantined_entries) == (
        "desk-17-0a1b2c3d",
        "missing",
        12.0,
        1,
    )
    fake.fault("DELETE", "/processors", Response(status_code=204), problem(404, "not-found"))
    await client.forget_processor("desk-17-0a1b2c3d")
    assert fake.requests[-1] == ("DELETE", "/api/v1/processors/desk-17-0a1b2c3d")
    with pytest.raises(e.NotFoundError):
        await client.forget_processor("../x")
    assert fake.requests[-1][1].endswith("/../x")  # escaped on its way


@pytest.mark.parametrize(("member", "value"), [("state", "odd"), ("missing_seconds", True), ("spooled_bytes", -1)])
async def test_processors_that_are_none(client: AsyncClient, fake: Fake, member: str, value: object) -> None:
    fake.fault("GET", "/processors", JSONResponse({"processors": [{**PROCESSOR, member: value}]}))
    with pytest.raises(e.BadAnswerError, match=member):
        await client.processors()


async def test_the_quarantine(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", f"/spool/{NAME}/content", Response(b"plain"))
    assert await client.spool_content(NAME) == b"plain"
    fake.fault("GET", f"/spool/{NAME}", JSONResponse(ENTRY))
    assert (await client.spool_entry(NAME)).index == 3
    fake.fault("GET", "/spool", page("next", ENTRY), page(None, {**ENTRY, "kind": None, "index": None}), page(None))
    assert [one.kind async for one in client.spool_entries()] == ["envelope", None]
    assert (await client.spool_page(limit=1)).quarantine_max_bytes == 1024**3
    for answer in (Response(status_code=204), problem(404, "not-found")):
        fake.fault("POST", f"/spool/{NAME}/retry", answer)
        fake.fault("DELETE", f"/spool/{NAME}", answer)
    await client.retry_spooled(NAME)
    await client.drop_spooled(NAME)
    for call in (client.retry_spooled, client.drop_spooled):
        with pytest.raises(e.NotFoundError):
            await call(NAME)


async def test_pages_that_are_none(client: AsyncClient, fake: Fake) -> None:
    fake.fault("GET", "/spool", page(None, {**ENTRY, "reason": 1}), JSONResponse([]), page("x"), page("x"))
    for _ in range(3):
        with pytest.raises(e.BadAnswerError):
            [one async for one in client.spool_entries()]


def test_the_same_without_asyncio(fake: Fake) -> None:
    with Client(fake.url, fake.url, token=TOKEN, retry=QUICK) as client:
        fake.fault("GET", "/processors", JSONResponse({"processors": [PROCESSOR]}))
        assert [one.state for one in client.processors()] == ["missing"]
        fake.fault("DELETE", "/", Response(status_code=204), Response(status_code=204))
        client.forget_processor("a")
        client.drop_spooled(NAME)
        fake.fault("POST", "/retry", Response(status_code=204))
        client.retry_spooled(NAME)
        fake.fault("GET", "/content", Response(b"plain"))
        assert client.spool_content(NAME) == b"plain"
        fake.fault("GET", f"/spool/{NAME}", JSONResponse(ENTRY))
        assert client.spool_entry(NAME).name == NAME
        fake.fault("GET", "/spool", page(None, ENTRY), page(None, ENTRY))
        assert client.spool_page().spooled_entries == 2
        assert [one.name for one in client.spool_entries()] == [NAME]


async def test_what_a_seal_waits_for_and_did_not_wait_for(client: AsyncClient, fake: Fake) -> None:
    await client.put_chunk("s", 0, b"x")
    client._policy.__class__(budget_seconds=0.05)
    waits = {"session_id": "s", "status": "seal-queued", "waiting_for": ["desk-17", "desk-18"]}
    fake.fault("POST", "/seal", *[JSONResponse(waits, 202) for _ in range(2000)])
    with pytest.raises(SealQueuedError, match="waits for desk-17, desk-18") as caught:
        await client.seal("s")
    assert (caught.value.waiting_for, caught.value.problem["waiting_for"]) == (
        ("desk-17", "desk-18"),
        ["desk-17", "desk-18"],
    )
    fake.faults.clear()
    sealed = fake.seal("s")
    body = {"manifest": sealed.to_json(), "manifest_sha256": sealed.sha256().hex(), "root": sealed.root.hex()}
    fake.fault("POST", "/seal", JSONResponse({**body, "unheard": ["desk-17"]}), JSONResponse({**body, "unheard": [1]}))
    assert (await client.seal("s")).unheard == ("desk-17",)
    with pytest.raises(e.BadAnswerError, match="unheard"):
        await client.seal("s")
    fake.fault("GET", "/sessions/s", JSONResponse({**fake._status("s"), "unheard": ["desk-17"]}))
    assert (await client.status("s")).unheard == ("desk-17",)
    assert (await client.status("s")).unheard == ()
