"""Who has a token that is not his: what SECURITY.md says that it is good for, and no more."""

import base64
import json
import time

import httpx
import pytest

from scripts.devstack.process import wait_until
from sessions.core import frames
from sessions.core.envelope import fingerprint
from sessions.core.types import DekId, SessionId
from tests.attacks import loot
from tests.attacks.conftest import DEK_CACHE_SECONDS, EXPIRED_TOKEN, PREFIX, PREFIX_TOKEN
from tests.attacks.hands import Hands
from tests.e2e.conftest import Api, session_name
from tests.unit.storage.chunks import envelope_of

CHUNKS = [b"the first chunk", b"the second chunk"]


@pytest.fixture
def name(api: Api) -> str:
    """An open session."""
    one = session_name("token")
    api.record(one, CHUNKS, seal=False)
    return one


@pytest.fixture
def sealed(api: Api) -> str:
    one = session_name("token")
    api.record(one, CHUNKS)
    return one


def _reading(api: Api, name: str, role: str) -> dict[str, int]:
    """The statuses of all that shows what a recording says, or what opens it."""
    path = f"/api/v1/sessions/{name}"
    return {
        "content": api.processor("GET", f"{path}/content", role).status_code,
        "chunk": api.processor("GET", f"{path}/chunks/0", role).status_code,
        "envelope": api.storage("GET", f"{path}/chunks/0/envelope", role).status_code,
        "keys": api.storage("GET", f"{path}/keys", role).status_code,
    }


def _changing(api: Api, name: str, role: str) -> dict[str, int]:
    """The statuses of all that changes something."""
    path = f"/api/v1/sessions/{name}"
    return {
        "chunk": api.put_chunk(name, 9, b"x", role=role).status_code,
        "seal": api.processor("POST", f"{path}/seal", role, json={"chunk_count": 99}).status_code,
        "hold": api.storage("PUT", f"{path}/hold", role, json={"held": False}).status_code,
        "retention": api.storage("PUT", f"{path}/retention", role, json={}).status_code,
        "rotate": api.processor("POST", "/api/v1/keys/rotate", role, json={}).status_code,
        "envelopes": api.storage("POST", "/api/v1/envelopes", role, content=b"").status_code,
        "shred": api.processor("DELETE", path, role).status_code,
        "shred at storage": api.storage("DELETE", path, role).status_code,
    }


def _let_in(statuses: dict[str, int]) -> set[str]:
    assert 401 not in statuses.values()
    assert all(status < 500 for status in statuses.values()), statuses
    return {what for what, status in statuses.items() if status != 403}


def test_record(api: Api, name: str, sealed: str) -> None:
    assert _let_in(_reading(api, name, "record")) == set()
    # He can tell whether a chunk is the one that he thinks, and change nothing.
    assert api.put_chunk(name, 0, CHUNKS[0]).status_code == 200
    refused = api.put_chunk(name, 0, b"another")
    assert (refused.status_code, refused.json()["code"]) == (409, "chunk-conflict")
    assert CHUNKS[0] not in refused.content
    assert api.processor("GET", f"/api/v1/sessions/{name}/chunks/0", "replay").content == CHUNKS[0]
    refused = api.put_chunk(sealed, 7, b"one more")
    assert (refused.status_code, refused.json()["code"]) == (409, "session-sealed")
    # He can seal before the recorder does; the recorder is told at its next chunk.
    assert api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 2}).status_code == 200
    assert api.put_chunk(name, 2, b"the third").json()["code"] == "session-sealed"
    assert _let_in(_changing(api, name, "record")) == {"chunk", "seal"}


def test_replay(api: Api, name: str) -> None:
    assert _let_in(_reading(api, name, "replay")) == {"content", "chunk"}
    assert _let_in(_changing(api, name, "replay")) == set()


def test_audit(api: Api, hands: Hands, sealed: str) -> None:
    assert _let_in(_reading(api, sealed, "audit")) == {"envelope"}
    assert _let_in(_changing(api, sealed, "audit")) == set()
    path = f"/api/v1/sessions/{sealed}"
    shown = [api.storage("GET", path + what).content for what in ("", "/manifest", "/receipt", "/chunks")]
    wrapped = bytes(hands.session(sealed)["keys"][0]["wrapped"])
    assert loot.found({"wrapped key": wrapped, "plaintext": CHUNKS[0]}, shown) == set()


def test_admin(api: Api, hands: Hands, sealed: str) -> None:
    path = f"/api/v1/sessions/{sealed}"
    assert _let_in(_reading(api, sealed, "admin")) == {"keys"}
    envelope, ring = hands.body(sealed, 0), api.storage("GET", f"{path}/keys", "admin").json()
    assert not any(loot.opens(key, envelope) for key in loot.candidates(ring))
    # A hold keeps it from being shredded, until he lifts it; what he did is told by the tombstone.
    assert api.storage("PUT", f"{path}/hold", "admin", json={"held": True}).status_code == 200
    assert api.processor("DELETE", path, "admin").json()["code"] == "session-held"
    assert api.storage("PUT", f"{path}/hold", "admin", json={"held": False}).status_code == 200
    assert api.processor("DELETE", path, "admin").json()["shredded_by"] == "stack-admin"
    again = api.storage("DELETE", path, "processor", params={"requested_by": "somebody-else"})
    assert again.json()["shredded_by"] == "stack-admin"  # the first tombstone stays
    assert _let_in(_changing(api, sealed, "admin")) == {"hold", "retention", "rotate", "shred", "shred at storage"}


def test_processor(api: Api, hands: Hands, name: str, sealed: str) -> None:
    path = f"/api/v1/sessions/{name}"
    assert _let_in(_reading(api, name, "processor")) == {"envelope", "keys"}
    # He puts bytes in the place of the next chunk: the recorder is told at once, replay gives nothing for them.
    junk = envelope_of(name, 2, b"under a key that no ring has")
    answer = api.storage("POST", "/api/v1/envelopes", "processor", content=frames.join([junk])).json()
    assert answer["results"][0]["result"] == "unknown-session"
    (key,) = api.storage("GET", path, "processor").json()["key_ids"]
    squatter = envelope_of(name, 2, b"not sealed with any key", DekId(bytes.fromhex(key["dek_id"])))
    answer = api.storage("POST", "/api/v1/envelopes", "processor", content=frames.join([squatter])).json()
    marks = fingerprint(SessionId(name), 2, squatter)
    assert answer["results"][0]["envelope_sha256"] == marks.envelope_sha256.hex()
    assert api.put_chunk(name, 2, b"the third").status_code >= 500
    assert api.processor("GET", f"{path}/chunks/2", "replay").status_code >= 500
    # What is sealed stays as it is.
    foreign = envelope_of(sealed, 0, b"in the place of the first")
    answer = api.storage("POST", "/api/v1/envelopes", "processor", content=frames.join([foreign])).json()
    assert answer["results"][0]["result"] == "conflict"
    assert api.processor("GET", f"/api/v1/sessions/{sealed}/content", "replay").content == b"".join(CHUNKS)
    # He seals before the recorder does, as if it had fallen silent; the recorder is told at its next chunk.
    silent = session_name("token")
    api.record(silent, CHUNKS, seal=False)
    body = {"chunk_count": 3, "sealed_by": "idle"}
    assert api.storage("POST", f"/api/v1/sessions/{silent}/seal", "processor", json=body).status_code == 200
    assert api.put_chunk(silent, 2, b"the third").json()["code"] == "session-sealed"
    # He puts rubbish in the place of a wrapped key: the recording is lost, and replay says so.
    key = api.storage("GET", f"{path}/keys", "processor").json()["keys"][0]
    rubbish = {name: key[name] for name in ("dek_id", "kek_id")} | {"wrapped": base64.b64encode(bytes(69)).decode()}
    change = {"session_id": name, "expected": key["wrapped"], "key": rubbish}
    answer = api.storage("POST", "/api/v1/keys/replace", "processor", json={"replacements": [change]})
    assert answer.json() == {"replaced": 1}
    time.sleep(DEK_CACHE_SECONDS + 0.1)
    refused = api.processor("GET", f"{path}/chunks/0", "replay")
    assert (refused.status_code, refused.json()["code"]) == (503, "key-unavailable")
    # He shreds in another's name.
    gone = api.storage("DELETE", f"/api/v1/sessions/{sealed}", "processor", params={"requested_by": "stack-admin"})
    assert gone.json()["shredded_by"] == "stack-admin"
    assert wait_until(lambda: _logged(api, sealed), 5)  # a request is logged when it has been answered


def _logged(api: Api, name: str) -> bool:
    """Whether storage's log says who shredded a session in truth."""
    lines = [json.loads(line) for line in api.stack.log("storage").read_text().splitlines() if name in line]
    return any(line.get("method") == "DELETE" and line.get("principal") == "stack-processor" for line in lines)


def _with(api: Api, token: str, service: str, method: str, path: str, **options) -> httpx.Response:
    url = api.stack.processor_url if service == "processor" else api.stack.storage_url
    return httpx.request(method, url + path, headers={"authorization": f"Bearer {token}"}, **options)


def test_prefix(api: Api, name: str) -> None:
    own = PREFIX + name
    deadline = time.monotonic() + 3  # the file was just changed
    while _with(api, PREFIX_TOKEN, "processor", "GET", f"/api/v1/sessions/{own}").status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    path = f"/api/v1/sessions/{own}/chunks/0"
    assert _with(api, PREFIX_TOKEN, "processor", "PUT", path, content=b"own").status_code == 201
    assert _with(api, PREFIX_TOKEN, "processor", "GET", path).content == b"own"
    for service, method, path in (
        ("processor", "GET", f"/api/v1/sessions/{name}/content"),
        ("processor", "GET", f"/api/v1/sessions/{name}"),
        ("processor", "PUT", f"/api/v1/sessions/{name}/chunks/5"),
        ("processor", "DELETE", f"/api/v1/sessions/{name}"),
        ("processor", "GET", f"/api/v1/sessions/{PREFIX[:-1]}/content"),
        ("processor", "GET", f"/api/v1/sessions/{own}%2F..%2F{name}"),
        ("processor", "POST", "/api/v1/keys/rotate"),
        ("storage", "GET", f"/api/v1/sessions/{name}/chunks/0/envelope"),
        ("storage", "GET", f"/api/v1/sessions/{name}/receipt"),
        ("storage", "GET", "/api/v1/sessions"),
        ("storage", "GET", "/api/v1/anchors"),
        ("storage", "POST", "/api/v1/scrub"),
    ):
        answer = _with(api, PREFIX_TOKEN, service, method, path)
        assert answer.status_code == (400 if "%2F" in path else 403), (method, path, answer.text)
    body = {"session_id": name, "chunk_id": f"{name}-chunk-000005", "chunk_data_base64": ""}
    assert _with(api, PREFIX_TOKEN, "processor", "POST", "/api/v1/chunks/process", json=body).status_code == 403


def test_expired(api: Api, name: str) -> None:
    refused = {401}
    for service, method, path in (
        ("processor", "GET", f"/api/v1/sessions/{name}/content"),
        ("processor", "PUT", f"/api/v1/sessions/{name}/chunks/5"),
        ("storage", "GET", f"/api/v1/sessions/{name}/receipt"),
        ("storage", "DELETE", f"/api/v1/sessions/{name}"),
    ):
        assert {_with(api, EXPIRED_TOKEN, service, method, path).status_code} == refused
