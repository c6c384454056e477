"""R6: whoever opens sessions with as much metadata, or as many gaps, as may be makes storage's lists no larger."""

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from bson import Binary, Int64
from pymongo import MongoClient

from bench.usage import forget_peak, peak_mib, resident_mib
from scripts.devstack.stack import Stack
from sessions.core.manifest import Manifest
from sessions.core.types import Hash, SessionId
from tests.conftest import Figure, own_stack
from tests.e2e.conftest import Api

SESSIONS = 1_500
METADATA_BYTES = 65_000
GROWTH_MIB = 60
GAPS = 40_000
LARGE_SESSIONS = 40
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, whose storage has done nothing yet, on a database that somebody has filled."""
    for stack in own_stack(tmp_path_factory):
        with MongoClient[dict[str, Any]](stack.mongodb_url) as client:
            sessions = client[stack.env["storage"]["MONGODB_DATABASE"]]["sessions"]
            for start in range(0, SESSIONS, 100):
                sessions.insert_many(_opened(number) for number in range(start, start + 100))
            for number in range(LARGE_SESSIONS):
                sessions.insert_one(_with_gaps(number))
        yield stack


def _opened(number: int) -> dict[str, Any]:
    metadata = b'{"a":"' + b"x" * (METADATA_BYTES - 8) + b'"}'
    key = {"dek_id": Binary(number.to_bytes(16, "big")), "kek_id": "kek", "wrapped": Binary(b"w" * 61)}
    return {
        "_id": f"large-{number:05}",
        "status": "open",
        "opened_at": BEGIN + timedelta(seconds=number),
        "metadata": Binary(metadata),
        "keys": [key],
        "active_at": datetime.now(UTC),
    }


def _with_gaps(number: int) -> dict[str, Any]:
    """As version 0.1.0 sealed it, with nothing beside its manifest; of the time before all others."""
    name = f"gaps-{number:05}"
    manifest = Manifest(
        session_id=SessionId(name),
        chunk_count=2 * GAPS,
        missing=tuple((index, index) for index in range(0, 2 * GAPS, 2)),
        plaintext_bytes=GAPS,
        envelope_bytes=GAPS * 90,
        root=Hash(hashlib.sha256(name.encode()).digest()),
        opened_at="2026-01-01T00:00:00.000Z",
        sealed_at="2026-01-02T00:00:00.000Z",
        sealed_by="idle",
        metadata_sha256=Hash(hashlib.sha256(b"{}").digest()),
    )
    sealed_at = datetime(2026, 1, 2, tzinfo=UTC)
    order = {"chunk_count": None, "sealed_by": "idle", "sealed_at": sealed_at, "id": "0" * 16}
    return _opened(number) | {
        "_id": name,
        "status": "sealed",
        "opened_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        "metadata": Binary(b"{}"),
        "manifest": Binary(manifest.to_bytes()),
        "tiles_attempt": "1",
        "seal_order": order | {"chunk_count": Int64(2 * GAPS)},
    }


async def _at_once(stack: Stack, path: str, count: int, role: str = "audit") -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=count)
    headers = {"authorization": f"Bearer {stack.tokens[role]}"}
    async with httpx.AsyncClient(
        base_url=stack.storage_url, timeout=60, headers=headers, limits=limits, trust_env=False
    ) as client:
        return await asyncio.gather(*(client.get(path) for _ in range(count)))


def _storage(stack: Stack) -> int:
    process = stack.process("storage")
    assert process is not None
    return process.pid


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/sessions?limit=1000",
        "/api/v1/sessions?limit=1000&status=open",
        "/api/v1/sessions?limit=1000&prefix=large-",
    ],
)
def test_large_metadata_does_not_make_lists_large(crowded: Stack, figure: Figure, path: str) -> None:
    pid = _storage(crowded)
    before = resident_mib(pid)
    forget_peak(pid)
    answers = asyncio.run(_at_once(crowded, path, 16))
    grown = peak_mib(pid) - before
    figure(f"16 of {path} at once: resident {before:.0f} MiB, at most {grown:.0f} MiB more")
    for answer in answers:
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("overloaded", "1")
        else:
            assert len(answer.json()["sessions"]) == 1000
    assert any(answer.status_code == 200 for answer in answers)
    assert grown < GROWTH_MIB


def test_many_gaps_do_not_hold_up_lists_and_statuses(crowded: Stack, figure: Figure) -> None:
    """M6: each list and status parsed manifests of 40,000 gaps, on the event loop."""
    api, pid = Api(crowded), _storage(crowded)
    before = resident_mib(pid)
    forget_peak(pid)
    seen: list[dict[str, Any]] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        answer = api.storage("GET", f"/api/v1/sessions?limit=1000&prefix=gaps-{cursor and '&cursor='}{cursor}").json()
        seen += answer["sessions"]
        cursor, pages = answer["next_cursor"] or "", pages + 1
    assert [one["session_id"] for one in seen] == [f"gaps-{number:05}" for number in range(LARGE_SESSIONS)]
    assert {(one["chunk_count"], one["plaintext_bytes"], one["sealed_at"]) for one in seen} == {
        (GAPS, GAPS, "2026-01-02T00:00:00.000Z")
    }
    assert peak_mib(pid) - before < GROWTH_MIB

    async def slowest() -> tuple[float, float]:
        """How long a page of such sessions takes then, and how long a probe waits beside many statuses."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await _at_once(crowded, "/api/v1/sessions?limit=1000&prefix=gaps-", 1)
        listed = loop.time() - began
        statuses = asyncio.create_task(_at_once(crowded, "/api/v1/sessions/gaps-00000", 32))
        worst = 0.0
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            while not statuses.done():
                began = loop.time()
                await client.get(f"{crowded.storage_url}/livez")
                worst = max(worst, loop.time() - began)
        for answer in await statuses:
            assert answer.status_code == 200, answer.text
            assert (len(answer.json()["missing"]), answer.json()["missing_truncated"]) == (1000, True)
        return listed, worst

    listed, worst = asyncio.run(slowest())
    figure(
        f"{LARGE_SESSIONS} sessions of {GAPS} gaps: {pages} pages at first, a page in {listed:.2f} s then, a probe "
        f"waited {worst * 1000:.0f} ms at most beside 32 statuses; {peak_mib(pid) - before:.0f} MiB more"
    )
    assert listed < 1
    assert worst < 1
    api.close()
