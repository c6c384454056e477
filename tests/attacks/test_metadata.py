"""Metadata that cannot be served again: refused at the door, and served where an older version has stored it."""

import hashlib
import json
import time

import pytest
from bson import Binary

from tests.attacks.conftest import DEK_CACHE_SECONDS
from tests.attacks.hands import Hands
from tests.e2e.conftest import Api, session_name

MAX_LEVELS = 32
STORED_LEVELS = (300, 900)
"""Depths that 0.1.0 took; pydantic refuses to serialise the smaller one already."""


def _nested(levels: int) -> str:
    """A metadata object of that many levels, as JSON."""
    return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def _open(api: Api, name: str, metadata: str):
    headers = {"content-type": "application/json"}
    path = f"/api/v1/sessions/{name}"
    return api.processor("PUT", path, content=f'{{"metadata":{metadata}}}', headers=headers)


def _open_at_storage(api: Api, name: str, metadata: str):
    key = {"dek_id": "A" * 22 + "==", "kek_id": "kek", "wrapped": "AAAA"}
    body = f'{{"metadata":{metadata},"key":{json.dumps(key)}}}'
    headers = {"content-type": "application/json"}
    return api.storage("PUT", f"/api/v1/sessions/{name}", "processor", content=body, headers=headers)


@pytest.mark.parametrize("levels", [MAX_LEVELS + 1, 450, 900, 100_000])
def test_what_is_too_deep_is_refused_at_the_door(api: Api, levels: int) -> None:
    """C1, B22: 450 levels were stored, and each question for the session made storage `away` for everybody."""
    name = session_name("deep")
    for opened in (_open, _open_at_storage):
        refused = opened(api, name, _nested(levels))
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request"), (opened, refused.text)
    assert api.storage("GET", f"/api/v1/sessions/{name}").status_code == 404


def test_what_is_deep_enough_is_taken_by_both(api: Api) -> None:
    name = session_name("deep")
    assert _open(api, name, _nested(MAX_LEVELS)).status_code == 201
    shown = api.storage("GET", f"/api/v1/sessions/{name}").json()["metadata"]
    assert shown == json.loads(_nested(MAX_LEVELS))


def test_what_grows_when_it_is_escaped_is_taken_by_both(api: Api) -> None:
    """L8: 64 KiB of DEL, six bytes each when escaped, were taken by the spool, and refused by storage: 413."""
    name = session_name("long")
    text = "\x7f" * (64 * 1024 - len('{"a":""}'))
    opened = _open(api, name, json.dumps({"a": text}, ensure_ascii=False))
    assert opened.status_code == 201, opened.text
    assert api.storage("GET", f"/api/v1/sessions/{name}").json()["metadata"] == {"a": text}
    refused = _open(api, session_name("long"), json.dumps({"a": text + "x"}, ensure_ascii=False))
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid-request")


@pytest.mark.parametrize("levels", STORED_LEVELS)
def test_what_an_older_version_stored_is_served(api: Api, hands: Hands, levels: int) -> None:
    """C1, B22: status, replay and seal of it failed for good, and others' chunks went to the spool."""
    name, victim = session_name("deep"), session_name("victim")
    api.record(name, [b"the first chunk"], seal=False)
    metadata = _nested(levels).encode()
    hands.db["sessions"].update_one({"_id": name}, {"$set": {"metadata": Binary(metadata)}})
    time.sleep(DEK_CACHE_SECONDS + 0.1)
    for role in ("audit", "processor"):
        shown = api.storage("GET", f"/api/v1/sessions/{name}", role)
        assert shown.status_code == 200, shown.text
        assert metadata in shown.content
    for index in range(5):
        assert api.processor("GET", f"/api/v1/sessions/{name}").status_code == 200
        stored = api.put_chunk(victim, index, b"a chunk of somebody else")
        assert (stored.status_code, stored.json()["durability"]) == (201, "stored")
    replayed = api.processor("GET", f"/api/v1/sessions/{name}/content", "replay")
    assert (replayed.status_code, replayed.content) == (200, b"the first chunk")
    sealed = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 1})
    assert sealed.status_code == 200, sealed.text
    assert sealed.json()["manifest"]["metadata_sha256"] == hashlib.sha256(metadata).hexdigest()
