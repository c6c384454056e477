"""Answers about sealed sessions: right, and of bounded memory whatever the manifest lists."""

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from sessions.core import manifest as manifests
from sessions.core.manifest import Manifest
from sessions.core.types import Hash, SessionId
from sessions.runtime.audit import Audit
from sessions.runtime.errors import DomainError
from sessions.runtime.models import Sealed
from sessions.storage import models, routes, sealing
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import Readiness
from sessions.storage.reads import MANIFEST_COPIES, SESSION_BYTES, UNRESERVED_MANIFEST_BYTES
from sessions.storage.seal_summary import summary_of
from sessions.storage.store import Seal, SealOrder, SessionRecord, SessionStatus
from tests.unit.runtime.apps import Written, app_of, client_of
from tests.unit.storage.chunks import EPOCH, House, session_record
from tests.unit.storage.test_processor_routes import _Everybody

A = SessionId("a")
MIB = 2**20
SEAL, RECEIPT, MANIFEST = "seal", "receipt", "manifest"


def manifest(gaps: int) -> Manifest:
    return Manifest(
        session_id=A,
        chunk_count=2 * gaps + 1,
        missing=tuple((2 * number + 1, 2 * number + 1) for number in range(gaps)),
        plaintext_bytes=gaps,
        envelope_bytes=gaps,
        root=Hash(bytes(range(32))),
        opened_at="2026-01-31T12:00:00.000Z",
        sealed_at="2026-01-31T12:00:00.000Z",
        sealed_by="idle",
        metadata_sha256=Hash(bytes(32)),
    )


def sealed(said: Manifest, *unheard: str, summary: bool = True) -> SessionRecord:
    seal = Seal(said.to_bytes(), "x", summary_of(said) if summary else None)
    order = SealOrder(None, "idle", EPOCH, unheard=unheard)
    return replace(session_record("a"), status=SessionStatus.SEALED, seal_order=order, seal=seal)


@pytest.fixture
async def client(house: House, readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    app = app_of(
        routes.router(house.ledger, house.shredder, house.evidence, readiness, house.reads),
        authenticator=_Everybody([]),
        audit=Audit("storage", Written()),
    )
    async with client_of(app, headers={"authorization": "Bearer processor"}, timeout=100) as client:
        yield client


async def ask(client: httpx.AsyncClient, what: str, **wanted: object) -> httpx.Response:
    path = f"/api/v1/sessions/a/{what}"
    return await (client.post(path, json=wanted) if what == SEAL else client.get(path))


@pytest.mark.parametrize("summary", [True, False])
@pytest.mark.parametrize("gaps", [0, 3, 20_000])
async def test_a_repeated_seal_gives_the_manifest_and_its_hash(
    house: House, client: httpx.AsyncClient, gaps: int, summary: bool
) -> None:
    said = manifest(gaps)
    house.sessions.records[A] = sealed(said, "desk-1", summary=summary)
    answer = await ask(client, SEAL)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert manifests.from_json(answer.json()["manifest"]) == said
    expected = {
        "manifest": said.to_json(),
        "manifest_sha256": said.sha256().hex(),
        "root": said.root.hex(),
        "unheard": ["desk-1"],
    }
    assert answer.json() == expected == Sealed.model_validate(expected).model_dump()


async def test_a_first_seal_is_answered_alike(house: House, client: httpx.AsyncClient) -> None:
    await house.session("a", 0, 1)
    first = await ask(client, SEAL)
    assert first.json() == (await ask(client, SEAL)).json()
    assert first.json()["manifest"]["chunk_count"] == 2


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"chunk_count": 7}, "chunks-missing"),
        ({"chunk_count": 9}, "chunks-missing"),
        ({"processor": "p", "floor": 8}, "chunks-missing"),
        ({"chunk_count": 6, "sealed_by": "idle"}, "chunk-count-mismatch"),
        ({"chunk_count": 7, "sealed_by": "idle"}, None),
    ],
)
async def test_a_repeated_seal_is_refused_as_by_the_desk(
    house: House, client: httpx.AsyncClient, wanted: dict, code: str | None
) -> None:
    house.sessions.records[A] = sealed(manifest(3))
    answer = await ask(client, SEAL, **wanted)
    assert answer.json().get("code") == code
    asked = wanted.get("chunk_count"), wanted.get("sealed_by", "recorder"), wanted.get("floor", 0)
    if code is None:
        assert sealing.sealed_as_asked(house.sessions.records[A], *asked) == manifest(3)
        return
    with pytest.raises(DomainError) as caught:
        sealing.sealed_as_asked(house.sessions.records[A], *asked)
    assert (caught.value.code, caught.value.detail) == (code, answer.json()["detail"])


async def test_a_receipt_is_the_model(house: House, client: httpx.AsyncClient) -> None:
    house.sessions.records[A] = sealed(manifest(3))
    answer = (await ask(client, RECEIPT)).json()
    assert models.ReceiptModel.model_validate(answer).model_dump() == answer
    assert (answer["version"], answer["batch"], answer["anchor"]["state"]) == (1, None, "pending")
    assert (await ask(client, MANIFEST)).content == manifest(3).to_bytes()


@pytest.mark.parametrize("what", [SEAL, RECEIPT, MANIFEST])
async def test_many_answers_at_once_take_bounded_memory_and_do_not_hold_the_loop(
    house: House, client: httpx.AsyncClient, what: str
) -> None:
    house.sessions.records[A] = sealed(manifest(100_000))
    get, worst = house.sessions.get, 0.0

    async def away(session_id: SessionId) -> SessionRecord | None:
        await asyncio.sleep(0.02)  # the way to the database
        return await get(session_id)

    async def lag() -> None:
        nonlocal worst
        while True:
            at = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - at)

    house.sessions.get = away
    await ask(client, what)
    gc.collect()
    watch = asyncio.create_task(lag())
    tracemalloc.start()
    try:
        answers = await asyncio.gather(*(ask(client, what) for _ in range(16)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        watch.cancel()
    assert {answer.status_code for answer in answers} == {200}
    assert peak < 16 * 6 * MIB  # the answers themselves, as this client has them, are 16 times 1.3 MB
    assert worst < 0.5


@pytest.mark.parametrize(("what", "pool"), [(SEAL, "seals"), (RECEIPT, "lists"), (MANIFEST, "lists")])
async def test_memory_is_reserved_by_the_manifests_size_before_it_is_read(
    house: House, client: httpx.AsyncClient, what: str, pool: str
) -> None:
    record = house.sessions.records[A] = sealed(manifest(5000))
    assert record.seal is not None
    size, seen, get = len(record.seal.manifest), [], house.sessions.get

    async def watched(session_id: SessionId) -> SessionRecord | None:
        seen.append(getattr(house.reads, pool).used_bytes)
        return await get(session_id)

    house.sessions.get = watched
    assert (await ask(client, what)).status_code == 200
    assert seen == [MANIFEST_COPIES * size + (0 if what == SEAL else SESSION_BYTES)]
    assert house.reads.seals.used_bytes == house.reads.lists.used_bytes == 0


async def test_the_seal_of_a_usual_session_waits_for_no_memory(house: House, client: httpx.AsyncClient) -> None:
    """Not even while its token has used all that it may."""
    record = house.sessions.records[A] = sealed(manifest(3))
    assert record.seal is not None
    assert len(record.seal.manifest) <= UNRESERVED_MANIFEST_BYTES
    for pool in (house.reads.lists, house.reads.seals, house.reads.content):
        await pool._budget.acquire(pool._budget.total_bytes, "")
    answer = await asyncio.wait_for(ask(client, SEAL), 2)
    assert answer.status_code == 200


@pytest.mark.parametrize("what", [RECEIPT, MANIFEST])
async def test_what_is_not_sealed(house: House, client: httpx.AsyncClient, what: str) -> None:
    assert (await ask(client, what)).json()["code"] == "session-not-found"
    await house.session("a")
    assert (await ask(client, what)).json()["code"] == "session-open"


async def test_a_session_that_is_sealed_between_two_looks_is_answered_with_its_manifest(house: House) -> None:
    house.sessions.records[A] = sealed(manifest(1))

    async def none(_: object) -> dict[SessionId, object]:
        return {}

    house.sessions.heads = none
    assert json.loads(await house.evidence.receipt(A))["manifest"]["chunk_count"] == 3
    assert isinstance(house.ledger, Ledger)
