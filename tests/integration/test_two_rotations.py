"""Two processors, wired as they are, on one storage and a real MongoDB: both rotate at once, while both record."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pymongo import AsyncMongoClient

from sessions.processor import main as processor
from sessions.processor import recovery
from sessions.processor.settings import ProcessorSettings
from sessions.storage import main as storage
from sessions.storage.settings import StorageSettings
from tests.integration.test_two_processors import _ready, _token_file
from tests.unit.processor.servers import serving

SESSIONS, LIVE = 24, 8


@asynccontextmanager
async def _storage(folder: Path, mongodb_url: str) -> AsyncIterator[str]:
    settings = StorageSettings(
        tokens_file=folder / "tokens",
        mongodb_url=mongodb_url,
        mongodb_database=f"lucid_test_{os.urandom(6).hex()}",
        anchoring="off",
    )
    async with serving(storage.build(settings), "on") as url, httpx.AsyncClient(base_url=url) as client:
        await _ready(client)
        yield url
    async with AsyncMongoClient(mongodb_url) as mongodb:
        await mongodb.drop_database(settings.mongodb_database)


@asynccontextmanager
async def _processor(folder: Path, url: str, token: str, keks: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    """One with these lines in its KEK_FILE."""
    path = folder / f"kek-{os.urandom(4).hex()}"
    path.write_text("".join(f"{kek}\n" for kek in keks))
    settings = ProcessorSettings(
        tokens_file=folder / "tokens",
        kek_file=path,
        recovery_public_key_file=folder / "recovery",
        storage_url=url,
        storage_token_file=folder / "token",
        spool="off",
    )
    headers = {"authorization": f"Bearer {token}"}
    async with (
        serving(processor.build(settings), "on") as its_url,
        httpx.AsyncClient(base_url=its_url, headers=headers, timeout=60) as client,
    ):
        yield client


async def _rotate(client: httpx.AsyncClient, limit: int) -> int:
    rewrapped, cursor = 0, None
    while True:
        answer = await client.post("/api/v1/keys/rotate", json={"cursor": cursor, "limit": limit})
        assert answer.status_code == 200, answer.text
        step = answer.json()
        assert step["failed"] == []
        rewrapped, cursor = rewrapped + step["rewrapped"], step["next_cursor"]
        if cursor is None:
            return rewrapped


def _kek(name: str) -> str:
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


@pytest.mark.parametrize("topology", ["mongod_standalone", "mongod_replset"])
async def test_rotating_at_once(request: pytest.FixtureRequest, tmp_path: Path, topology: str) -> None:
    mongodb_url = request.getfixturevalue(topology).url
    token = _token_file(tmp_path)
    (tmp_path / "recovery").write_text(recovery.generate()[1])
    old, new = _kek("old"), _kek("new")
    contents: dict[str, bytes] = {}

    async def record(client: httpx.AsyncClient, name: str) -> None:
        for index in range(2):
            data = os.urandom(20)
            answer = await client.put(f"/api/v1/sessions/{name}/chunks/{index}", content=data)
            assert answer.status_code == 201, answer.text
            contents[name] = contents.get(name, b"") + data

    async def check(client: httpx.AsyncClient) -> None:
        for name, content in contents.items():
            answer = await client.get(f"/api/v1/sessions/{name}/content")
            assert (answer.status_code, answer.content) == (200, content), name

    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_storage(tmp_path, mongodb_url))

        async def start(*keks: str) -> httpx.AsyncClient:
            return await stack.enter_async_context(_processor(tmp_path, url, token, list(keks)))

        # As README says: all have the new KEK before one makes it active, and then the last one still wraps with the old.
        first, last = await start(new, old), await start(old, new)
        await asyncio.gather(*(record(last, f"before-{number}") for number in range(SESSIONS)))
        rewrapped = await asyncio.gather(
            _rotate(first, 7),
            _rotate(first, 11),
            *(
                record(client, f"{at}-{number}")
                for number in range(LIVE // 2)
                for at, client in ((1, first), (2, last))
            ),
        )
        assert sum(count for count in rewrapped if count) >= SESSIONS
        await check(first)
        await check(last)

        second = await start(new, old)
        await asyncio.gather(_rotate(first, 5), _rotate(second, 5))
        status = (await first.get("/api/v1/keys")).json()
        assert [(entry["kek_id"], entry["rings"]) for entry in status["keks"]] == [("new", SESSIONS + LIVE), ("old", 0)]
        assert status["unsealed"] == []
        await check(await start(new))
