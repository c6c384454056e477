"""docs/api-access.md against both services: each role is tried on each route of their documents."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.devstack.process import ROOT
from sessions.processor import main as processor
from sessions.processor.settings import ProcessorSettings
from sessions.runtime.auth import Role
from sessions.storage import main as storage
from sessions.storage.settings import StorageSettings
from tests.unit.runtime.apps import client_of
from tests.unit.storage.chunks import driver_may_drop_sockets

DOCUMENT = ROOT / "docs" / "api-access.md"
NOWHERE = "127.0.0.1:1"
"""Behind the services there is nothing: whoever is let through gets another error than 401 and 403."""
SOME = "some-sessions"
_PARAMETERS = {"session_id": "desk-1", "index": "0", "root": "ab" * 32, "name": "0000000000000001-000000000000"}
_HEAD = "| route | " + " | ".join(Role) + " | with `sessions=` |\n|---|" + "---|" * (len(Role) + 1) + "\n"


def _tokens(folder: Path) -> Path:
    path = folder / "tokens"
    holders = {**{role.value: role.value for role in Role}, SOME: ",".join(Role)}
    lines = [
        f"{name} roles={roles} sha256={hashlib.sha256(name.encode()).hexdigest()}"
        + (" sessions=desk-" if name == SOME else "")
        for name, roles in holders.items()
    ]
    path.write_text("\n".join(lines))
    return path


def _app(service: str, folder: Path) -> Any:
    tokens = _tokens(folder)
    if service == "session-storage":
        return storage.build(
            StorageSettings(tokens_file=tokens, anchoring="off", mongodb_url=f"mongodb://{NOWHERE}/")  # type: ignore[arg-type]
        )
    (folder / "kek").write_text(f"k:{base64.b64encode(bytes(range(32))).decode()}")
    (folder / "token").write_text("t")
    return processor.build(
        ProcessorSettings(
            tokens_file=tokens,
            kek_file=folder / "kek",
            storage_url=f"http://{NOWHERE}",  # type: ignore[arg-type]
            storage_token_file=folder / "token",
            spool="off",
        )
    )


@pytest.fixture(params=["chunk-processor", "session-storage"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, Any, httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(driver_may_drop_sockets())
        app = _app(request.param, tmp_path)
        await stack.enter_async_context(app.router.lifespan_context(app))
        yield request.param, app, await stack.enter_async_context(client_of(app))


async def _status(client: httpx.AsyncClient, method: str, path: str, token: str | None) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = await client.request(method.upper(), path.format(**_PARAMETERS), headers=headers)
    if answer.status_code in (401, 403):
        assert answer.json()["code"] == {401: "unauthorized", 403: "forbidden"}[answer.status_code]
    return answer.status_code


async def _row(client: httpx.AsyncClient, method: str, path: str) -> str:
    cells = []
    for token in (*Role, SOME):
        status = await _status(client, method, path, token)
        assert status != 401, (method, path, token)
        cells.append("" if status == 403 else "yes")
    return f"| `{method.upper()} {path}` | {' | '.join(cells)} |\n"


async def test_the_table_is_what_the_service_does(service: tuple[str, Any, httpx.AsyncClient]) -> None:
    name, app, client = service
    table, opened = _HEAD, []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/api/"):
                assert await _status(client, method, path, None) in (200, 503)
                opened.append(path)
                continue
            assert await _status(client, method, path, None) == 401
            assert {"401", "403", "429"} <= operation["responses"].keys()
            table += await _row(client, method, path)
    assert opened == ["/health", "/readyz", "/livez", "/metrics"]
    text = DOCUMENT.read_text()
    documented = text.partition(f"## {name}\n\n")[2].partition("\n\n")[0]
    assert documented.strip() == table.strip(), f"put this into {DOCUMENT.name}:\n\n{table}"
