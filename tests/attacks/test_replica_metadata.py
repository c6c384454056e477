"""What is said of a session while storage is away: acknowledged metadata and terms of keeping are in force (R3)."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from scripts.devstack.process import wait_until
from tests.attacks.pair import PATIENCE_SECONDS, Pair, Processor, names, paired, whole

KEPT = {"case": 4711, "retention": {"retain_days": 3650}}


@pytest.fixture(scope="module")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with paired(tmp_path_factory.mktemp("metadata") / "stack") as pair:
        yield pair


@pytest.fixture
def pair(one_pair: Pair) -> Iterator[Pair]:
    yield one_pair
    one_pair.heal()


def opened(processor: Processor, session: str, metadata: dict[str, Any]) -> int:
    return processor.ask("PUT", f"/sessions/{session}", json={"metadata": metadata}).status_code


def assert_kept(pair: Pair, session: str, count: int, metadata: dict[str, Any]) -> None:
    """The session has this metadata, and is kept as long as it says."""
    manifest = pair.a.sealed(session, count)
    assert pair.recorded(session) == whole(session, count)
    shown = pair.storage("GET", f"/sessions/{session}").json()["metadata"]
    assert shown == metadata
    assert manifest["metadata_sha256"] == sha256(rfc8785.dumps(metadata)).hexdigest()
    early = pair.a.ask("DELETE", f"/sessions/{session}", "admin")
    assert (early.status_code, early.json().get("code")) == (409, "session-retained"), early.text


def test_metadata_by_one_and_the_first_chunk_by_the_other(pair: Pair) -> None:
    """R3: B drained first, A's opening was set aside, and an admin shredded what was to be kept for ten years."""
    (session,) = names("terms", 1)
    pair.a.cut()
    pair.b.cut()
    assert opened(pair.a, session, KEPT) == 201
    pair.b.put(session, [0], "spooled")
    pair.b.mend()
    assert wait_until(lambda: pair.status(session) == "open", PATIENCE_SECONDS)
    pair.a.mend()
    assert wait_until(pair.a.drained, PATIENCE_SECONDS)
    assert_kept(pair, session, 1, KEPT)
    assert pair.a.replica.metric("lucid_spool_quarantine_entries") == 0


def test_metadata_after_the_first_chunk_with_one_processor(pair: Pair) -> None:
    """R3 with one processor: the PUT was answered 200 twice, and its metadata were dropped."""
    (session,) = names("later", 1)
    pair.a.cut()
    pair.a.put(session, [0], "spooled")
    assert opened(pair.a, session, KEPT) in (200, 201)
    assert opened(pair.a, session, KEPT) in (200, 201)
    pair.a.mend()
    assert wait_until(pair.a.drained, PATIENCE_SECONDS)
    assert opened(pair.a, session, KEPT) == 200
    assert_kept(pair, session, 1, KEPT)


def test_metadata_after_the_first_chunk_with_storage_there(pair: Pair) -> None:
    """R3: what is acknowledged while storage is away was refused while it is there: both take the first metadata."""
    (session,) = names("there", 1)
    pair.a.put(session, [0], "stored")
    assert opened(pair.b, session, KEPT) in (200, 201)
    assert opened(pair.a, session, KEPT) == 200
    other = pair.b.ask("PUT", f"/sessions/{session}", json={"metadata": {"case": 1}})
    assert (other.status_code, other.json()["code"]) == (409, "metadata-conflict")
    assert_kept(pair, session, 1, KEPT)
    late = pair.b.ask("PUT", f"/sessions/{session}", json={"metadata": {"case": 1}})
    assert late.status_code == 409


def test_a_seal_waits_for_metadata_that_are_acknowledged(pair: Pair) -> None:
    """R3: A's seal was put in force before B's metadata had come, and they were in no manifest."""
    (session,) = names("late", 1)
    pair.a.put(session, [0], "stored")
    pair.b.cut()
    assert opened(pair.b, session, KEPT) in (200, 201)
    sealing = pair.a.seal(session, 1)
    assert sealing.status_code == 202, sealing.text
    pair.b.mend()
    assert_kept(pair, session, 1, KEPT)
