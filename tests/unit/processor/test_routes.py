"""chunk-processor as it is wired, over HTTP on session-storage, which runs on its twins."""

import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from sessions.core.errors import IndexOutOfRangeError
from sessions.core.types import MAX_CHUNK_INDEX, SessionId
from sessions.processor import main, recovery
from sessions.processor.chunk_route import parse_index
from sessions.processor.lucid_routes import index_of
from sessions.processor.models import LucidChunk
from sessions.processor.settings import ProcessorSettings
from sessions.processor.storage_client import StorageClient
from sessions.runtime.auth import Role
from sessions.runtime.digest import content_digest
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError
from tests.unit.processor.servers import MIB, TOKEN
from tests.unit.runtime.apps import client_of
from tests.unit.storage.chunks import House

URL = "/api/v1/sessions/a"
A = SessionId("a")


@pytest.mark.parametrize(("text", "index"), [("0", 0), ("7", 7), ("42", 42), (str(MAX_CHUNK_INDEX), MAX_CHUNK_INDEX)])
def test_indexes_of_paths(text: str, index: int) -> None:
    assert parse_index(text) == index


@pytest.mark.parametrize(
    "text", ["", "-", "x", "1.0", "1e3", "+1", " 1", "1_0", "--1", "\u0661", "\u00b2", "007", "00", "-0", "-01", "1\n"]
)
def test_what_is_no_index(text: str) -> None:
    with pytest.raises(DomainError) as caught:
        parse_index(text)
    assert caught.value.code == "invalid-request"


@pytest.mark.parametrize("text", ["-1", str(MAX_CHUNK_INDEX + 1), "9" * 19, "9" * 5000, "-" + "9" * 30])
def test_an_index_that_no_session_can_have(text: str) -> None:
    with pytest.raises(IndexOutOfRangeError):
        parse_index(text)


def _chunk(chunk_id: str, **metadata) -> LucidChunk:
    return LucidChunk.model_validate(
        {"chunk_id": chunk_id, "chunk_data_base64": "", **({"metadata": metadata} if metadata else {})}
    )


@pytest.mark.parametrize(
    ("chunk", "index"),
    [
        (_chunk("a-chunk-000042"), 42),
        (_chunk("a-chunk-000042", chunk_index=7), 7),
        (_chunk("a-chunk-000042", codec="x"), 42),
        (_chunk("none", chunk_index=0), 0),
        (_chunk("5"), 5),
        (_chunk("x9-008"), 8),
    ],
)
def test_indexes_of_the_lucid_recorder(chunk: LucidChunk, index: int) -> None:
    assert index_of(chunk) == index


@pytest.mark.parametrize("chunk_id", ["none", "chunk-5-", "x\u0661"])
def test_a_lucid_chunk_without_an_index(chunk_id: str) -> None:
    with pytest.raises(DomainError) as caught:
        index_of(_chunk(chunk_id))
    assert caught.value.code == "invalid-request"


def _settings(folder: Path, url: str, **values) -> ProcessorSettings:
    tokens = [f"{role} roles={role} sha256={hashlib.sha256(role.encode()).hexdigest()}" for role in Role]
    # `desk` may do everything, with some sessions.
    tokens.append(f"desk roles={','.join(Role)} sha256={hashlib.sha256(b'desk').hexdigest()} sessions=desk-")
    (folder / "tokens").write_text("\n".join(tokens))
    (folder / "kek").write_text(f"k:{base64.b64encode(os.urandom(32)).decode()}")
    (folder / "token").write_text(TOKEN)
    return ProcessorSettings(
        tokens_file=folder / "tokens",
        kek_file=folder / "kek",
        storage_url=url,
        storage_token_file=folder / "token",
        **{"spool": "off", "chunk_max_bytes": MIB, "batch_body_max_bytes": 2 * MIB, **values},
    )


@pytest.fixture
async def client(storage_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = main.build(_settings(tmp_path, storage_url))
    async with app.router.lifespan_context(app), client_of(app, headers=_as("record")) as client:
        yield client


def _as(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {role}"}


async def test_only_requests_with_a_token_count_as_chunks_that_come_in(storage_url: str, tmp_path: Path) -> None:
    """Else anybody could slow down all questions."""
    app = main.build(_settings(tmp_path, storage_url))
    traffic = app.state.authenticator.traffic
    async with app.router.lifespan_context(app), client_of(app) as client:
        refused = await client.put(f"{URL}/chunks/0", content=b"x", headers=_as("nobody"))
        assert (refused.status_code, traffic.is_coming) == (401, False)
        stored = await client.put(f"{URL}/chunks/0", content=b"x", headers=_as("record"))
        assert (stored.status_code, traffic.is_coming) == (201, True)


async def test_a_session_from_open_to_shredded(client: httpx.AsyncClient) -> None:
    opened = await client.put(URL, json={"metadata": {"host": "x"}})
    assert (opened.status_code, opened.json()["status"], opened.json()["next_index"]) == (201, "open", 0)
    assert (await client.put(URL)).status_code == 200
    conflict = await client.put(URL, json={"metadata": {"host": "y"}})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "metadata-conflict")
    parts = [os.urandom(1000), b"", bytes(5000)]
    for index, data in enumerate(parts):
        for status in (201, 200):
            headers = {"content-digest": content_digest(data)}
            answer = await client.put(f"{URL}/chunks/{index}", content=data, headers=headers)
            assert (answer.status_code, answer.json()["index"]) == (status, index)
    other = await client.put(f"{URL}/chunks/0", content=b"other")
    assert (other.status_code, other.json()["code"]) == (409, "chunk-conflict")
    assert (await client.get(URL)).json()["chunk_count"] == 3
    assert (await client.post(f"{URL}/seal", json={"chunk_count": 4})).json()["missing"] == [[3, 3]]
    sealed = await client.post(f"{URL}/seal")
    assert (sealed.status_code, sealed.json()["manifest"]["chunk_count"]) == (200, 3)
    assert (await client.post(f"{URL}/seal", json={"chunk_count": 3})).json() == sealed.json()
    for index, data in enumerate(parts):
        read = await client.get(f"{URL}/chunks/{index}", headers=_as("replay"))
        assert (read.content, read.headers["content-digest"]) == (data, content_digest(data))
    assert (await client.delete(URL, headers=_as("admin"))).json()["status"] == "shredded"
    for path in ("chunks/0", "content"):
        assert (await client.get(f"{URL}/{path}", headers=_as("replay"))).status_code == 410


async def test_content_and_its_ranges(client: httpx.AsyncClient) -> None:
    whole = os.urandom(3000)
    for index in range(3):
        await client.put(f"{URL}/chunks/{index}", content=whole[1000 * index : 1000 * (index + 1)])
    full = await client.get(f"{URL}/content", headers=_as("replay"))
    assert (full.status_code, full.content, full.headers["accept-ranges"]) == (200, whole, "bytes")
    part = await client.get(f"{URL}/content", headers={**_as("replay"), "range": "bytes=990-2009"})
    assert (part.status_code, part.content) == (206, whole[990:2010])
    assert (part.headers["content-range"], part.headers["content-length"]) == ("bytes 990-2009/3000", "1020")
    beyond = await client.get(f"{URL}/content", headers={**_as("replay"), "range": "bytes=3000-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */3000")
    await client.put(f"{URL}/chunks/9", content=b"x")
    gaps = await client.get(f"{URL}/content", headers=_as("replay"))
    assert (gaps.status_code, gaps.json()["missing"]) == (409, [[3, 8]])


async def test_a_token_for_some_sessions_reaches_no_other(client: httpx.AsyncClient) -> None:
    data = {"chunk_id": "c-0", "chunk_data_base64": ""}
    single, batch = "/api/v1/chunks/process", "/api/v1/chunks/process-batch"
    for name, good in (("desk-1", True), ("desk", False), ("a", False)):
        url = f"/api/v1/sessions/{name}"
        for method, path, body in (
            ("PUT", url, None),
            ("PUT", f"{url}/chunks/0", None),
            ("POST", single, {"session_id": name, **data}),
            ("POST", batch, {"session_id": name, "chunks": [data]}),
            ("GET", url, None),
            ("GET", f"{url}/chunks/0", None),
            ("GET", f"{url}/content", None),
            ("POST", f"{url}/seal", None),
            ("POST", f"{url}/finalize", None),
            ("GET", f"{url}/merkle-root", None),
            ("DELETE", url, None),
        ):
            answer = await client.request(method, path, json=body, headers=_as("desk"))
            assert answer.is_success if good else answer.status_code == 403, (method, path, answer.text)
            assert good or answer.json()["code"] == "forbidden"
    for name in ("desk", "a"):
        assert (await client.get(f"/api/v1/sessions/{name}")).status_code == 404
    for method, path in (("GET", "/api/v1/keys"), ("POST", "/api/v1/keys/rotate")):
        assert (await client.request(method, path, headers=_as("desk"))).status_code == 403


async def test_no_room_for_a_replay(client: httpx.AsyncClient, monkeypatch) -> None:
    await client.put(f"{URL}/chunks/0", content=b"x")

    async def chunks(*_) -> None:
        raise DomainError("overloaded", "no room", retry_after_seconds=1)

    monkeypatch.setattr(StorageClient, "chunks", chunks)
    answer = await client.get(f"{URL}/content", headers=_as("replay"))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "code"),
    [
        ("/api/v1/sessions/-a/chunks/0", b"", {}, 400, "invalid-session-id"),
        (f"{URL}/chunks/x", b"", {}, 400, "invalid-request"),
        (f"{URL}/chunks/{MAX_CHUNK_INDEX + 1}", b"", {}, 400, "index-out-of-range"),
        (f"{URL}/chunks/0", bytes(MIB + 1), {}, 413, "body-too-large"),
        (f"{URL}/chunks/0", b"x", {"content-digest": content_digest(b"y")}, 400, "digest-mismatch"),
        (f"{URL}/chunks/0", b"x", {"content-digest": "x"}, 400, "bad-content-digest"),
        (f"{URL}/chunks/0", b"x", _as("replay"), 403, "forbidden"),
        (f"{URL}/chunks/0", b"x", _as("nobody"), 401, "unauthorized"),
    ],
)
async def test_a_chunk_that_is_refused(  # noqa: PLR0917
    client, house: House, path: str, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await client.put(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert house.chunks.records == {}


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("PUT", URL, "replay"),
        ("GET", URL, "admin"),
        ("POST", f"{URL}/seal", "replay"),
        ("DELETE", URL, "record"),
        ("GET", f"{URL}/chunks/0", "record"),
        ("GET", f"{URL}/content", "audit"),
        ("POST", "/api/v1/chunks/process", "replay"),
        ("GET", f"{URL}/merkle-root", "replay"),
    ],
)
async def test_other_roles_are_turned_away(client: httpx.AsyncClient, method: str, path: str, role: str) -> None:
    answer = await client.request(method, path, headers=_as(role))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def _lucid(chunk_id: str, data: bytes, **more) -> dict:
    return {"chunk_id": chunk_id, "chunk_data_base64": base64.b64encode(data).decode(), **more}


async def test_the_lucid_recorders_routes(client: httpx.AsyncClient, house: House) -> None:
    one = await client.post("/api/v1/chunks/process", json={"session_id": "a", **_lucid("a-chunk-000000", b"zero")})
    assert one.status_code == 200
    assert (one.json()["success"], one.json()["metadata"]["index"], one.json()["error"]) == (True, 0, None)
    chunks = [
        _lucid("a-chunk-000001", b"one"),
        _lucid("x", b"two", metadata={"chunk_index": 2, "other": 1}),
        _lucid("a-chunk-000000", b"other"),
        _lucid("no number", b"x"),
        {"chunk_id": "a-3", "chunk_data_base64": "!"},
        _lucid("a-4", bytes(MIB + 1)),
        _lucid("a-999999999999999999", b"x"),
    ]
    batch = await client.post("/api/v1/chunks/process-batch", json={"session_id": "a", "chunks": chunks})
    assert batch.status_code == 200
    told = batch.json()
    assert (told["success"], told["total_chunks"], told["successful_chunks"], told["failed_chunks"]) == (False, 7, 2, 5)
    codes = [result.get("error", {}).get("code") for result in told["results"]]
    assert codes[:3] == [None, None, "chunk-conflict"]
    assert codes[3:] == ["invalid-request", "invalid-request", "body-too-large", "index-out-of-range"]
    assert sorted(house.chunks.records[A]) == [0, 1, 2]
    root = f"{URL}/merkle-root"
    assert (await client.get(root)).json()["code"] == "session-open"
    final = (await client.post(f"{URL}/finalize")).json()
    assert (final["finalized"], final["session_id"]) == (True, "a")
    assert (await client.get(root)).json()["merkle_root"] == final["merkle_root"]
    assert (await client.get(f"{URL}/content", headers=_as("replay"))).content == b"zeroonetwo"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"session_id": "-", "chunk_id": "x-1", "chunk_data_base64": ""}', b"\xff"]
)
@pytest.mark.parametrize("path", ["process", "process-batch"])
async def test_a_lucid_request_that_is_not_as_documented(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    answer = await client.post(f"/api/v1/chunks/{path}", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request")


async def test_a_lucid_batch_fails_as_a_whole_when_storage_is_away(client, monkeypatch) -> None:
    async def away(*_) -> None:
        raise DomainError("storage-unavailable", "away", retry_after_seconds=1)

    monkeypatch.setattr(StorageClient, "open", away)
    body = {"session_id": "a", "chunks": [_lucid("a-0", b"x")]}
    answer = await client.post("/api/v1/chunks/process-batch", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_health_follows_storage(client: httpx.AsyncClient, tmp_path: Path) -> None:
    assert (await client.get("/health")).json()["checks"] == {
        "storage": {"status": "ok", "detail": ""},
        "tokens": {"status": "ok", "detail": ""},
        "audit": {"status": "ok", "detail": ""},
        "background": {"status": "ok", "detail": ""},
        "memory": {"status": "ok", "detail": ""},
        "chunk-limit": {"status": "ok", "detail": ""},
    }
    app = main.build(_settings(tmp_path, "http://127.0.0.1:1"))
    async with app.router.lifespan_context(app), client_of(app) as alone:
        health = await alone.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert "STORAGE_URL does not answer" in health.json()["checks"]["storage"]["detail"]
        assert (await alone.get("/livez")).status_code == 200
        answer = await alone.put(f"{URL}/chunks/0", content=b"x", headers=_as("record"))
        assert (answer.status_code, answer.json()["code"]) == (503, "storage-unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_the_document_holds_the_hot_route_and_the_lucid_bodies(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = document["paths"]
    assert paths["/api/v1/sessions/{session_id}/chunks/{index}"].keys() == {"put", "get"}
    body = paths["/api/v1/chunks/process-batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in str(body)


@pytest.mark.parametrize(
    ("name", "setting"), [("tokens", "TOKENS_FILE"), ("kek", "KEK_FILE"), ("token", "STORAGE_TOKEN_FILE")]
)
def test_a_file_that_cannot_work_is_named(tmp_path: Path, name: str, setting: str) -> None:
    settings = _settings(tmp_path, "http://127.0.0.1:1")
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigurationError, match=f"^{setting}: "):
        main.build(settings)


async def test_keys_are_told_and_rotated_for_an_administrator(storage_url: str, tmp_path: Path) -> None:
    private, public = recovery.generate()
    (tmp_path / "public").write_text(public)
    settings = _settings(tmp_path, storage_url)
    old = (tmp_path / "kek").read_text()
    app = main.build(settings)
    async with app.router.lifespan_context(app), client_of(app, headers=_as("record")) as client:
        for number in range(3):
            assert (await client.put(f"/api/v1/sessions/s{number}/chunks/0", content=b"content")).status_code == 201
        for method, path in (("GET", "/api/v1/keys"), ("POST", "/api/v1/keys/rotate")):
            assert (await client.request(method, path)).status_code == 403

    (tmp_path / "kek").write_text(f"new:{base64.b64encode(os.urandom(32)).decode()}\n{old}")
    recoverable = settings.model_copy(update={"recovery_public_key_file": tmp_path / "public"})
    app = main.build(recoverable)
    async with app.router.lifespan_context(app), client_of(app, headers=_as("admin")) as client:
        recipient = recovery.RecoveryKey(private).recipient_id
        assert (await client.get("/api/v1/keys")).json() == {
            "active": "new",
            "keks": [{"kek_id": "new", "in_file": True, "rings": 0}, {"kek_id": "k", "in_file": True, "rings": 3}],
            "recipient": recipient,
            "recipients": [{"recipient": None, "rings": 3}],
            "unsealed": ["s0", "s1", "s2"],
        }
        first = (await client.post("/api/v1/keys/rotate", json={"limit": 2.0})).json()
        assert (first["rings"], first["rewrapped"], first["overtaken"], first["failed"]) == (2, 2, 0, [])
        rest = (await client.post("/api/v1/keys/rotate", json={"cursor": first["next_cursor"]})).json()
        assert (rest["rewrapped"], rest["next_cursor"]) == (1, None)
        assert (await client.post("/api/v1/keys/rotate")).json()["rings"] == 0
        for body in ({"limit": 0}, {"limit": 101}, {"limit": "2"}, {"cursor": "x"}, {"cursor": "y" * 501}, {"x": 1}):
            answer = await client.post("/api/v1/keys/rotate", json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid-request"), body
        status = (await client.get("/api/v1/keys")).json()
        assert [entry["rings"] for entry in status["keks"]] == [3, 0]
        assert status["unsealed"] == []

    (tmp_path / "kek").write_text((tmp_path / "kek").read_text().splitlines()[0])
    app = main.build(settings)
    async with app.router.lifespan_context(app), client_of(app, headers=_as("replay")) as client:
        assert (await client.get("/api/v1/sessions/s1/content")).content == b"content"


def test_a_recovery_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "public").write_text(recovery.generate()[0])
    settings = _settings(tmp_path, "http://127.0.0.1:1", recovery_public_key_file=tmp_path / "public")
    with pytest.raises(ConfigurationError, match="RECOVERY_PUBLIC_KEY_FILE"):
        main.build(settings)


def test_a_spool_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"SPOOL_DIR: .*make it.*SPOOL=off"):
        main.build(_settings(tmp_path, "http://127.0.0.1:1", spool="on", spool_dir=tmp_path / "none"))


async def test_a_declared_length_closes_the_spool_to_nobody(tmp_path: Path) -> None:
    """Of a request whose body never comes the head alone is judged, and for this request alone."""
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "processor.json").write_text(json.dumps({"name": "p", "introduced": True}))
    values = {"spool": "on", "spool_dir": spool, "spool_free_min_bytes": 0}
    values |= {"spool_max_bytes": MIB, "chunk_max_bytes": 2 * MIB}
    app = main.build(_settings(tmp_path, "http://127.0.0.1:1", **values))
    async with app.router.lifespan_context(app), client_of(app, headers=_as("record")) as client:

        async def put(index: int, length: int = 1) -> int:
            headers = {"content-length": str(length)}
            return (await client.put(f"{URL}/chunks/{index}", content=b"x", headers=headers)).status_code

        assert await put(0) == 201
        for index, (length, status) in enumerate(((10**12, 413), (2 * MIB, 507)), 1):
            assert await put(index, length) == status
            assert await put(index) == 201


async def test_a_spool_that_another_processor_has(storage_url: str, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    settings = _settings(tmp_path, storage_url, spool="on", spool_dir=spool)
    app = main.build(settings)
    with pytest.raises(ConfigurationError, match="in use by another processor"):
        main.build(settings)
    async with app.router.lifespan_context(app):
        pass
    again = main.build(settings)
    async with again.router.lifespan_context(again), client_of(again, headers=_as("record")) as client:
        answer = await client.put(f"{URL}/chunks/0", content=b"x")
        assert (answer.status_code, answer.json()["durability"]) == (201, "stored")
        health = (await client.get("/health")).json()
        assert health["checks"]["spool"] == {"status": "ok", "detail": ""}


def test_a_kill_point_without_leave_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LUCID_TEST_KILL_AT", "chunk-sealed")
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 78
    assert "configuration error: LUCID_TEST_KILL_AT" in capsys.readouterr().err


async def test_seals_take_turns_by_their_tokens(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    await client.put(URL)
    owners: list[str] = []
    seal = StorageClient.seal

    async def noted(storage: StorageClient, name: SessionId, count: int | None, *, owner: str, **claims: object):
        owners.append(owner)
        return await seal(storage, name, count, owner=owner, **claims)

    monkeypatch.setattr(StorageClient, "seal", noted)
    for way in ("seal", "finalize"):
        assert (await client.post(f"{URL}/{way}")).status_code == 200
    assert owners == ["record", "record"]
