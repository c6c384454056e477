"""Both services as they are wired, in one process, over HTTP, on a real MongoDB; two processors on one storage."""

import asyncio
import base64
import hashlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from sessions.core import manifest as manifests
from sessions.core import merkle
from sessions.core import proof as proofs
from sessions.core.envelope import fingerprint
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, SessionId
from sessions.processor import main as processor
from sessions.processor.settings import ProcessorSettings
from sessions.runtime.auth import Role
from sessions.storage import main as storage
from sessions.storage.settings import StorageSettings
from tests.unit.processor.servers import MIB, serving


@dataclass
class Services:
    """Clients of two processors and of storage, with every role."""

    processors: list[httpx.AsyncClient]
    storage: httpx.AsyncClient


def _token_file(folder: Path) -> str:
    token = "lucid_" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    roles = ",".join(Role)
    (folder / "tokens").write_text(f"all roles={roles} sha256={hashlib.sha256(token.encode()).hexdigest()}\n")
    (folder / "token").write_text(token)
    (folder / "kek").write_text(f"k:{base64.b64encode(os.urandom(32)).decode()}\n")
    return token


async def _ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def services(mongod_standalone, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    token = _token_file(folder)
    common = {"tokens_file": folder / "tokens", "chunk_max_bytes": CHUNK_MAX_BYTES_LIMIT}
    database = f"lucid_test_{os.urandom(6).hex()}"
    async with AsyncExitStack() as stack:
        settings = StorageSettings(
            mongodb_url=mongod_standalone.url,
            mongodb_database=database,
            anchoring="off",
            inflight_max_bytes=512 * MIB,
            **common,
        )
        url = await stack.enter_async_context(serving(storage.build(settings), "on"))

        async def client(base_url: str) -> httpx.AsyncClient:
            headers = {"authorization": f"Bearer {token}"}
            made = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60)
            return await stack.enter_async_context(made)

        processors = []
        for _ in range(2):
            its = ProcessorSettings(
                kek_file=folder / "kek",
                storage_url=url,
                storage_token_file=folder / "token",
                spool="off",  # what a slow hour put there would be read through the one processor alone
                inflight_max_bytes=512 * MIB,
                replay_max_bytes=512 * MIB,
                **common,
            )
            its_url = await stack.enter_async_context(serving(processor.build(its), "on"))
            processors.append(await client(its_url))
        found = Services(processors, await client(url))
        await _ready(found.storage)
        yield found
        from pymongo import AsyncMongoClient

        async with AsyncMongoClient(mongod_standalone.url) as mongodb:
            await mongodb.drop_database(database)


@pytest.fixture
def session() -> str:
    return f"s-{os.urandom(6).hex()}"


async def _proven(services: Services, session: str, index: int) -> proofs.ChunkProof:
    base = f"/api/v1/sessions/{session}"
    manifest = manifests.from_bytes((await services.storage.get(f"{base}/manifest")).content)
    envelope = (await services.storage.get(f"{base}/chunks/{index}/envelope")).content
    proof = proofs.from_bytes((await services.storage.get(f"{base}/chunks/{index}/proof")).content)
    proof.verify_in(manifest)
    assert proof.leaf_hash == fingerprint(SessionId(session), index, envelope).leaf_hash
    return proof


async def test_one_session_through_two_processors_at_once(services: Services, session: str) -> None:
    base = f"/api/v1/sessions/{session}"
    chunks = [os.urandom(100 + index) for index in range(40)]

    async def put(index: int) -> httpx.Response:
        return await services.processors[index % 2].put(f"{base}/chunks/{index}", content=chunks[index])

    order = list(range(40))
    random.Random(1).shuffle(order)
    answers = await asyncio.gather(*map(put, order))
    assert {answer.status_code for answer in answers} == {201}
    for reader in services.processors:
        assert (await reader.get(f"{base}/content")).content == b"".join(chunks)
        # And a repeat through the other one is known to it.
        repeat = await reader.put(f"{base}/chunks/5", content=chunks[5])
        assert (repeat.status_code, repeat.json()["leaf_hash"]) == (200, answers[order.index(5)].json()["leaf_hash"])
    view = (await services.storage.get(base)).json()
    assert len(view["keys"]) == 1
    sealed = [(await client.post(f"{base}/seal", json={"chunk_count": 40})).json() for client in services.processors]
    assert sealed[0] == sealed[1]
    leaves = [bytes.fromhex(answer.json()["leaf_hash"]) for _, answer in sorted(zip(order, answers, strict=True))]
    assert sealed[0]["root"] == merkle.root(leaves).hex()
    for index in (0, 17, 39):
        await _proven(services, session, index)


async def test_one_chunk_through_two_processors_at_once(services: Services, session: str) -> None:
    base = f"/api/v1/sessions/{session}"
    for index in range(10):
        same, other = f"{base}/chunks/{2 * index}", f"{base}/chunks/{2 * index + 1}"
        answers = await asyncio.gather(*(client.put(same, content=b"same") for client in services.processors))
        assert sorted(answer.status_code for answer in answers) == [200, 201]
        assert answers[0].json() == answers[1].json()
        works = (client.put(other, content=b"%d" % number) for number, client in enumerate(services.processors))
        assert sorted(answer.status_code for answer in await asyncio.gather(*works)) == [201, 409]


async def test_the_largest_chunk_that_there_can_be(services: Services, session: str) -> None:
    base = f"/api/v1/sessions/{session}"
    content = os.urandom(CHUNK_MAX_BYTES_LIMIT)
    one, two = services.processors
    answer = await one.put(f"{base}/chunks/0", content=content)
    assert (answer.status_code, answer.json()["plaintext_bytes"]) == (201, CHUNK_MAX_BYTES_LIMIT)
    assert (await two.get(f"{base}/chunks/0")).content == content
    part = await two.get(f"{base}/content", headers={"range": "bytes=-1000"})
    assert (part.status_code, part.content) == (206, content[-1000:])
    assert (await two.put(f"{base}/chunks/0", content=content)).status_code == 200
    too_large = await one.put(f"{base}/chunks/1", content=content + b"x")
    assert (too_large.status_code, too_large.json()["code"]) == (413, "body-too-large")
    await one.post(f"{base}/seal")
    await _proven(services, session, 0)


async def test_chunks_in_any_order_and_where_to_resume(services: Services, session: str) -> None:
    base = f"/api/v1/sessions/{session}"
    one, two = services.processors
    for index in (5, 3, 0):
        assert (await one.put(f"{base}/chunks/{index}", content=b"%d" % index)).status_code == 201
    view = (await two.get(base)).json()
    assert (view["next_index"], view["missing"], view["chunk_count"]) == (6, [[1, 2], [4, 4]], 3)
    refused = await two.post(f"{base}/seal")
    assert (refused.status_code, refused.json()["missing"]) == (409, [[1, 2], [4, 4]])
    for index in (4, 1, 2):
        assert (await two.put(f"{base}/chunks/{index}", content=b"%d" % index)).status_code == 201
    assert (await one.get(base)).json()["missing"] == []
    assert (await one.get(f"{base}/content")).content == b"012345"
    assert (await one.post(f"{base}/seal", json={"chunk_count": 6})).status_code == 200


async def test_many_small_chunks_at_once_and_a_replay_with_ranges(services: Services, session: str) -> None:
    base = f"/api/v1/sessions/{session}"
    chunks = [os.urandom(index % 50) for index in range(200)]
    one, two = services.processors
    works = [one.put(f"{base}/chunks/{index}", content=chunk) for index, chunk in enumerate(chunks)]
    answers = await asyncio.gather(*works)
    assert {answer.status_code for answer in answers} == {201}
    whole = b"".join(chunks)
    dice = random.Random(2)
    for _ in range(3):
        start, end = sorted(dice.sample(range(len(whole)), 2))
        part = await two.get(f"{base}/content", headers={"range": f"bytes={start}-{end}"})
        assert (part.status_code, part.content) == (206, whole[start : end + 1])
        assert part.headers["content-range"] == f"bytes {start}-{end}/{len(whole)}"
    assert (await two.get(f"{base}/content")).content == whole


async def test_a_seal_in_the_midst_of_recording(services: Services, session: str) -> None:
    """Whatever was acknowledged is covered, and what is not covered was refused."""
    base = f"/api/v1/sessions/{session}"
    one, two = services.processors
    await one.put(f"{base}/chunks/0", content=b"first")
    acknowledged = {0}

    async def put(index: int) -> None:
        answer = await services.processors[index % 2].put(f"{base}/chunks/{index}", content=b"x")
        assert answer.status_code in (201, 409), answer.text
        if answer.status_code == 201:
            acknowledged.add(index)

    async def seal() -> None:
        await asyncio.sleep(0.01)
        for _ in range(500):
            if (await two.post(f"{base}/seal")).status_code == 200:
                return
            await asyncio.sleep(0.005)

    async def record() -> None:
        for start in range(1, 200, 4):
            await asyncio.gather(*map(put, range(start, start + 4)))

    await asyncio.gather(record(), seal())
    view = (await one.get(base)).json()
    assert view["status"] == "sealed"
    assert acknowledged == set(range(view["chunk_count"]))
    for index in (0, view["chunk_count"] - 1):
        await _proven(services, session, index)


async def test_a_request_id_joins_both_services(services: Services, session: str) -> None:
    answer = await services.processors[0].get(f"/api/v1/sessions/{session}", headers={"x-request-id": "joined-1"})
    assert (answer.status_code, answer.json()["request_id"]) == (404, "joined-1")
