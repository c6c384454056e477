"""Who writes to the database: replay refuses, or a scrub or an auditor finds it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from scripts.devstack.stack import Stack
from sessions.core.types import DekId
from sessions.processor.keys import Dek
from tests.altering import altered_end
from tests.attacks import loot
from tests.attacks.conftest import Kept, failures, fetch_envelopes, receipt_of, scrubbed
from tests.attacks.hands import Hands
from tests.e2e.conftest import Api, session_name

CHUNKS = [f"chunk {index}, ".encode() * (index + 2) for index in range(5)]
WHOLE = b"".join(CHUNKS)
ALTERED, BODY = "altered", "body"


@pytest.fixture
def name(api: Api) -> str:
    """A sealed session."""
    one = session_name("database")
    api.record(one, CHUNKS)
    return one


def alter(hands: Hands, name: str) -> None:
    hands.overwrite(name, 2, altered_end(hands.body(name, 2)))


def truncate(hands: Hands, name: str) -> None:
    hands.overwrite(name, 2, hands.body(name, 2)[:-1])


def alter_consistently(hands: Hands, name: str) -> None:
    hands.put(name, 2, altered_end(hands.body(name, 2)), len(CHUNKS[2]))


def swap_indexes(hands: Hands, name: str) -> None:
    one, two = hands.body(name, 2), hands.body(name, 3)
    hands.overwrite(name, 2, two)
    hands.overwrite(name, 3, one)


def reorder_consistently(hands: Hands, name: str) -> None:
    one, two = hands.body(name, 2), hands.body(name, 3)
    hands.put(name, 2, two, len(CHUNKS[3]))
    hands.put(name, 3, one, len(CHUNKS[2]))


def swap_sessions(hands: Hands, name: str) -> None:
    other = hands.db["bodies"].find_one({"_id.s": {"$ne": name}, "_id.i": 2})
    assert other is not None
    hands.put(name, 2, bytes(other["data"]), len(CHUNKS[2]))


def drop_body(hands: Hands, name: str) -> None:
    hands.drop(name, 2, "bodies")


def drop(hands: Hands, name: str) -> None:
    hands.drop(name, 2)


def drop_tail(hands: Hands, name: str) -> None:
    hands.drop(name, 4)


def drop_all(hands: Hands, name: str) -> None:
    for index in range(5):
        hands.drop(name, index)


def alter_hash(hands: Hands, name: str) -> None:
    hands.alter(name, 2, envelope_sha256=bytes(32))


def alter_length(hands: Hands, name: str) -> None:
    hands.alter(name, 2, plaintext_bytes=len(CHUNKS[2]) - 5)


ATTACKS: list[tuple[Callable[[Hands, str], None], tuple[str, str, int | None]]] = [
    (alter, (ALTERED, BODY, 2)),
    (truncate, ("truncated", BODY, 2)),
    (alter_consistently, (ALTERED, "tree", None)),
    (swap_indexes, ("foreign", BODY, 2)),
    (reorder_consistently, ("foreign", BODY, 2)),
    (swap_sessions, ("foreign", BODY, 2)),
    (drop_body, ("missing", BODY, 2)),
    (drop, ("missing", "record", 2)),
    (drop_tail, ("missing", "record", 4)),
    (drop_all, ("missing", "record", 0)),
    (alter_hash, (ALTERED, "record", 2)),
    (alter_length, (ALTERED, BODY, 2)),
]


def replayed(api: Api, name: str, start: int = 0) -> tuple[bytes, str]:
    """What a replay gives before it ends, and how it ends: the code of a problem, `broken` or `whole`."""
    headers = {"authorization": f"Bearer {api.token('replay')}"} | ({"range": f"bytes={start}-"} if start else {})
    url, got = f"{api.stack.processor_url}/api/v1/sessions/{name}/content", b""
    with httpx.stream("GET", url, headers=headers, timeout=30) as answer:
        if answer.status_code not in (200, 206):
            answer.read()
            return b"", answer.json()["code"]
        try:
            for part in answer.iter_raw():
                got += part
        except httpx.RemoteProtocolError:
            return got, "broken"
    return got, "whole"


@pytest.mark.parametrize(("attack", "finding"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_a_hand_in_the_database(api: Api, hands: Hands, name: str, attack, finding) -> None:
    assert replayed(api, name) == (WHOLE, "whole")
    assert scrubbed(api, name) == []
    attack(hands, name)
    got, end = replayed(api, name)
    assert end != "whole"
    assert WHOLE.startswith(got)
    got, end = replayed(api, name, len(WHOLE) - 3)  # what is not touched may be given, and nothing else
    assert got == WHOLE[-3:] if end == "whole" else WHOLE[-3:].startswith(got)
    assert finding in scrubbed(api, name)


def test_a_shift_by_records_that_are_not_read(api: Api, hands: Hands, name: str) -> None:
    """The one thing that replay does not see: a Range is placed by lengths in records. A scrub does."""
    hands.alter(name, 0, plaintext_bytes=len(CHUNKS[0]) - 5)
    hands.alter(name, 1, plaintext_bytes=len(CHUNKS[1]) + 5)
    assert replayed(api, name)[1] == "broken"
    assert {(ALTERED, BODY, 0), (ALTERED, BODY, 1)} <= set(scrubbed(api, name))


def test_an_older_envelope_is_put_back(stack: Stack, api: Api, hands: Hands, tmp_path: Path) -> None:
    """The recorder really sent it in this place: replay takes it, scrub and auditor do not."""
    name = session_name("older")
    assert api.put_chunk(name, 0, b"first thought").status_code == 201
    older = hands.body(name, 0)
    hands.drop(name, 0)  # so that the recorder may send another
    assert api.put_chunk(name, 0, b"second").status_code == 201
    seal = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 1})
    assert seal.status_code == 200
    receipt = receipt_of(api, name)
    envelopes = fetch_envelopes(api, name, 1, tmp_path / "before")
    session = Kept(name, [b"second"], receipt, envelopes)
    assert session.verify(stack, envelopes=envelopes).verdict == "proven"

    hands.overwrite(name, 0, older)
    assert replayed(api, name)[1] != "whole"
    hands.put(name, 0, older, len(b"first thought"))
    assert api.processor("GET", f"/api/v1/sessions/{name}/chunks/0", "replay").content == b"first thought"
    assert (ALTERED, "tree", None) in scrubbed(api, name)
    assert session.verify(stack, envelopes=fetch_envelopes(api, name, 1, tmp_path / "after")).failed


def test_a_truncated_session_that_agrees_with_itself(
    stack: Stack, api: Api, hands: Hands, kept: dict[str, Kept], tmp_path: Path
) -> None:
    one = kept["truncated"]
    assert one.verify(stack, envelopes=one.envelopes).verdict == "proven"
    for index in (3, 4):
        hands.drop(one.name, index)
    hands.agree(one.name)
    # Services and scrub know nothing but the database.
    assert replayed(api, one.name) == (b"".join(one.chunks[:3]), "whole")
    assert scrubbed(api, one.name) == []
    now = fetch_envelopes(api, one.name, 5, tmp_path / "now")
    assert "chunk 3 is missing" in failures(one.verify(stack, envelopes=now))
    shown = api.storage("GET", f"/api/v1/sessions/{one.name}/receipt").content
    assert "no anchor of this batch root" in failures(one.verify(stack, receipt=shown, envelopes=now))
    assert one.verify(stack).verdict == "proven"  # what was kept holds as before


def test_a_forged_manifest_that_agrees_with_itself(stack: Stack, api: Api, hands: Hands, kept: dict[str, Kept]) -> None:
    one = kept["forged"]
    hands.agree(one.name, sealed_at="2026-01-31T11:00:00.000Z", opened_at="2026-01-31T10:00:00.000Z")
    assert scrubbed(api, one.name) == []
    shown = api.storage("GET", f"/api/v1/sessions/{one.name}/receipt").content
    assert b"2026-01-31T11:00:00.000Z" in shown
    assert "no anchor of this batch root" in failures(one.verify(stack, receipt=shown))
    assert one.verify(stack).verdict == "proven"


def test_before_the_anchor_only_an_acknowledgement_tells(stack: Stack, api: Api, hands: Hands, tmp_path: Path) -> None:
    """The operator, with the key, in a session that is not sealed yet: all that follows is consistent and proven."""
    name = session_name("window")
    acknowledged = [api.put_chunk(name, index, b"as it was").json()["leaf_hash"] for index in range(2)]
    document = hands.session(name)
    key = Dek(DekId(bytes(document["keys"][0]["dek_id"])), loot.dek(stack, document))
    forged = hands.forge(name, 1, key, b"as they like it")
    seal = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 2})
    assert seal.status_code == 200
    envelopes = fetch_envelopes(api, name, 2, tmp_path / "envelopes")
    session = Kept(name, [], receipt_of(api, name), envelopes)
    assert replayed(api, name) == (b"as it was" + b"as they like it", "whole")
    assert scrubbed(api, name) == []
    assert session.verify(stack, envelopes=envelopes).verdict == "proven"
    chunks = api.storage("GET", f"/api/v1/sessions/{name}/chunks").json()["chunks"]
    assert [one["leaf_hash"] == was for one, was in zip(chunks, acknowledged, strict=True)] == [True, False]
    assert chunks[1]["envelope_sha256"] == hashlib.sha256(forged).hexdigest()


def test_the_tail_of_an_open_session(api: Api, hands: Hands) -> None:
    """A recorder that says how many chunks there are is told."""
    name = session_name("tail")
    api.record(name, CHUNKS, seal=False)
    hands.drop(name, 4)
    answer = api.processor("POST", f"/api/v1/sessions/{name}/seal", json={"chunk_count": 5})
    assert (answer.status_code, answer.json()["code"]) == (409, "chunks-missing")
    assert answer.json()["missing"] == [[4, 4]]
