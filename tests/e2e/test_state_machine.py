"""Random orders of all that may be done with sessions, on the running stack and on a small model: no difference.

`LUCID_STATE_MACHINE_EXAMPLES=500 scripts/test tests/e2e/test_state_machine.py` tries more orders than the fixed ones.
"""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from scripts.devstack import leaks
from scripts.devstack.stack import Stack
from sessions.core import envelope, manifest, merkle, proof, receipt
from sessions.core.types import SessionId
from sessions.runtime.digest import content_digest
from tests.e2e.conftest import Api, session_name

EXAMPLES = 25
STEPS = 30
CHOSEN = os.environ.get("LUCID_STATE_MACHINE_EXAMPLES")
LARGE = bytes(range(256)) * 300


@dataclass
class Chunk:
    """What was acknowledged of a chunk."""

    plaintext: bytes
    answer: dict[str, Any]


@dataclass
class Session:
    """A session as it should be; `sealed` is the manifest, `status` none, open, sealed or shredded."""

    name: str
    status: str = "none"
    metadata: dict[str, Any] | None = None
    chunks: dict[int, Chunk] = field(default_factory=dict)
    held: bool = False
    retain_days: int = 0
    sealed: manifest.Manifest | None = None

    @property
    def end(self) -> int:
        return max(self.chunks, default=-1) + 1

    def gaps(self, count: int) -> list[list[int]]:
        """First and last index of what is missing below `count`."""
        found: list[list[int]] = []
        for index in range(count):
            if index not in self.chunks:
                if found and found[-1][1] == index - 1:
                    found[-1][1] = index
                else:
                    found.append([index, index])
        return found

    def root(self, count: int) -> bytes:
        """The root of what is there, and of missing leaves for what is not."""
        name = SessionId(self.name)
        return merkle.root(
            bytes.fromhex(self.chunks[index].answer["leaf_hash"])
            if index in self.chunks
            else merkle.leaf_hash(envelope.missing_leaf_input(name, index))
            for index in range(count)
        )

    def total(self, what: str) -> int:
        return sum(chunk.answer[what] for chunk in self.chunks.values())


class Rig:
    """A stack of our own: its processor keeps the keys of one session only, so they are fetched all the time."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.api = Api(stack)
        self.keks = 1

    def rotate(self) -> None:
        """Put a new KEK first and wrap all keys under it."""
        path = Path(self.stack.env["processor"]["KEK_FILE"])
        self.keks += 1
        kek = os.urandom(32)
        leaks.register("KEK", kek)
        new = self.stack.folder / "secrets" / f"kek-{self.keks}"
        new.write_text(f"kek-{self.keks}:{base64.b64encode(kek).decode()}\n{path.read_text()}")
        self.stack.restart("processor", {"KEK_FILE": str(new)})
        cursor = None
        while True:
            answer = self.api.processor("POST", "/api/v1/keys/rotate", "admin", json={"cursor": cursor})
            assert answer.status_code == 200, answer.text
            assert answer.json()["failed"] == []
            if (cursor := answer.json()["next_cursor"]) is None:
                break
        keks = self.api.processor("GET", "/api/v1/keys", "admin").json()["keks"]
        assert [one["kek_id"] for one in keks if one["rings"]] in ([], [f"kek-{self.keks}"])


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    one = Stack(
        tmp_path_factory.mktemp("machine") / "stack",
        settings={"processor": {"DEK_CACHE_MAX_SESSIONS": "1"}, "storage": {"ANCHOR_INTERVAL_SECONDS": "1"}},
    )
    one.start()
    made = Rig(one)
    try:
        yield made
    finally:
        made.api.close()
        one.stop()
        shutil.rmtree(one.folder / "mongo", ignore_errors=True)


def _is(answer: httpx.Response, status: int, code: str = "") -> Any:
    """The answer's body, when its status and code are these."""
    told = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    assert (answer.status_code, told.get("code", "") if answer.is_error else "") == (status, code), answer.text[:300]
    return told


which = st.integers(0, 1)
indexes = st.integers(0, 4) | st.just(7)
contents = st.sampled_from([b"", b"a", b"b", bytes(300), LARGE])


class Machine(RuleBasedStateMachine):
    """Each rule does one thing with one of two sessions, and compares the answer with what the model says."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig, self.api = rig, rig.api
        self.sessions = [Session(session_name("machine")) for _ in range(2)]
        self.restarts = 0

    def path(self, session: Session, more: str = "") -> str:
        return f"/api/v1/sessions/{session.name}{more}"

    @rule(number=which, metadata=st.sampled_from([None, {}, {"a": 1}]))
    def open(self, number: int, metadata: dict[str, Any] | None) -> None:
        session = self.sessions[number]
        body = {} if metadata is None else {"metadata": metadata}
        answer = self.api.processor("PUT", self.path(session), json=body)
        if session.status == "none":
            session.status, session.metadata = "open", metadata
            _is(answer, 201)
        elif session.status == "shredded":
            _is(answer, 410, "session-shredded")
        elif session.status == "sealed":
            _is(answer, 409, "session-sealed")
        elif metadata is not None and session.metadata is None:
            session.metadata = metadata  # the first that come are taken
            _is(answer, 200)
        elif metadata is not None and metadata != session.metadata:
            _is(answer, 409, "metadata-conflict")
        else:
            _is(answer, 200)

    @rule(number=which, index=indexes, data=contents)
    def put(self, number: int, index: int, data: bytes) -> None:
        self._put(self.sessions[number], index, data)

    @rule(number=which, data=contents)
    def put_next(self, number: int, data: bytes) -> None:
        self._put(self.sessions[number], self.sessions[number].end, data)

    @rule(number=which, place=st.integers(0, 9))
    def put_again(self, number: int, place: int) -> None:
        session = self.sessions[number]
        if session.chunks:
            index = sorted(session.chunks)[place % len(session.chunks)]
            self._put(session, index, session.chunks[index].plaintext)

    def _put(self, session: Session, index: int, data: bytes) -> None:
        answer = self.api.put_chunk(session.name, index, data)
        known = session.chunks.get(index)
        if session.status == "shredded":
            _is(answer, 410, "session-shredded")
        elif known is not None and known.plaintext == data:
            assert _is(answer, 200) == known.answer
        elif known is not None:
            _is(answer, 409, "chunk-conflict")
        elif session.status == "sealed":
            _is(answer, 409, "session-sealed")
        else:
            session.status = "open"
            told = _is(answer, 201)
            session.chunks[index] = Chunk(data, told)
            assert (told["session_id"], told["index"], told["plaintext_bytes"]) == (session.name, index, len(data))

    @rule(number=which, count=st.none() | st.integers(0, 6))
    def seal(self, number: int, count: int | None) -> None:
        session = self.sessions[number]
        body = {} if count is None else {"chunk_count": count}
        self._seal(session, count, self.api.processor("POST", self.path(session, "/seal"), json=body), "recorder")

    @rule(number=which)
    def seal_what_is_there(self, number: int) -> None:
        session = self.sessions[number]
        body = {"chunk_count": session.end}
        self._seal(session, session.end, self.api.processor("POST", self.path(session, "/seal"), json=body), "recorder")

    @rule(number=which, count=st.none() | st.integers(0, 9))
    def seal_with_gaps(self, number: int, count: int | None) -> None:
        session = self.sessions[number]
        body = {"sealed_by": "idle", "chunk_count": count}
        answer = self.api.storage("POST", self.path(session, "/seal"), "processor", json=body)
        self._seal(session, count, answer, "idle")

    def _seal(self, session: Session, count: int | None, answer: httpx.Response, sealed_by: str) -> None:
        if session.status == "none":
            _is(answer, 404, "session-not-found")
            return
        if session.sealed is None:
            wanted = session.end if count is None else count
            if session.end > wanted:
                _is(answer, 409, "chunk-count-mismatch")
                return
            gaps = session.gaps(wanted)
            if gaps and sealed_by == "recorder":
                assert _is(answer, 409, "chunks-missing")["missing"] == gaps
                return
            session.sealed = sealed = manifest.from_json(_is(answer, 200)["manifest"])
            session.status = "sealed"
            assert (sealed.session_id, sealed.chunk_count, sealed.sealed_by) == (session.name, wanted, sealed_by)
            assert sealed.root == session.root(wanted)
            assert [list(gap) for gap in sealed.missing] == gaps
            assert sealed.plaintext_bytes == session.total("plaintext_bytes")
            assert sealed.envelope_bytes == session.total("envelope_bytes")
            assert sealed.metadata_sha256 == manifest.metadata_sha256(session.metadata or {})
        elif count is not None:
            missing = [list(gap) for gap in session.sealed.missing] if sealed_by == "recorder" else []
            if count > session.sealed.chunk_count:
                missing.append([session.sealed.chunk_count, count - 1])
            if missing:
                assert _is(answer, 409, "chunks-missing")["missing"] == missing
                return
            if count < session.sealed.chunk_count:
                _is(answer, 409, "chunk-count-mismatch")
                return
        told = _is(answer, 200)
        assert told["manifest"] == session.sealed.to_json()
        assert (told["manifest_sha256"], told["root"]) == (session.sealed.sha256().hex(), session.sealed.root.hex())

    @rule(number=which, held=st.booleans())
    def hold(self, number: int, held: bool) -> None:
        session = self.sessions[number]
        answer = self.api.storage("PUT", self.path(session, "/hold"), "admin", json={"held": held})
        if self._is_there(session, answer):
            session.held = held
            assert _is(answer, 200)["held"] == held

    @rule(number=which, retain=st.sampled_from([None, 0, 30]), delete=st.sampled_from([None, 0, 7, 60]))
    def retain(self, number: int, retain: int | None, delete: int | None) -> None:
        session = self.sessions[number]
        body = {"retain_days": retain, "delete_after_days": delete}
        answer = self.api.storage("PUT", self.path(session, "/retention"), "admin", json=body)
        if self._is_there(session, answer):
            if delete and delete < (retain or 0):
                _is(answer, 409, "retention-too-short")
                return
            session.retain_days = retain or 0
            told = _is(answer, 200)
            assert bool(told["retained_until"]) == bool(session.sealed and session.retain_days)
            assert bool(told["delete_at"]) == bool(session.sealed and delete)

    def _is_there(self, session: Session, answer: httpx.Response) -> bool:
        """Whether there is a session that was not shredded; else the answer says so."""
        if session.status == "none":
            _is(answer, 404, "session-not-found")
        elif session.status == "shredded":
            _is(answer, 410, "session-shredded")
        return session.status not in ("none", "shredded")

    @rule(number=which, at_storage=st.booleans())
    def shred(self, number: int, at_storage: bool) -> None:
        session = self.sessions[number]
        send = self.api.storage if at_storage else self.api.processor
        answer = send("DELETE", self.path(session), "admin")
        if session.status == "none":
            _is(answer, 404, "session-not-found")
        elif session.status == "open":
            _is(answer, 409, "session-open")
        elif session.status == "sealed" and session.held:
            _is(answer, 409, "session-held")
        elif session.status == "sealed" and session.retain_days:
            _is(answer, 409, "session-retained")
        else:
            session.status = "shredded"
            assert _is(answer, 200)["status"] == "shredded"

    @rule(number=which, index=indexes)
    def read_chunk(self, number: int, index: int) -> None:
        session = self.sessions[number]
        answer = self.api.processor("GET", self.path(session, f"/chunks/{index}"), "replay")
        if self._is_there(session, answer):
            if index not in session.chunks:
                _is(answer, 404, "chunk-not-found")
                return
            _is(answer, 200)
            assert answer.content == session.chunks[index].plaintext
            assert answer.headers["content-digest"] == content_digest(answer.content)

    @rule(number=which, index=indexes)
    def read_envelope(self, number: int, index: int) -> None:
        session = self.sessions[number]
        answer = self.api.storage("GET", self.path(session, f"/chunks/{index}/envelope"))
        if self._is_there(session, answer):
            if index not in session.chunks:
                _is(answer, 404, "chunk-not-found")
                return
            _is(answer, 200)
            found = envelope.fingerprint(SessionId(session.name), index, answer.content)
            told = session.chunks[index].answer
            assert (found.envelope_bytes, found.envelope_sha256.hex()) == (
                told["envelope_bytes"],
                told["envelope_sha256"],
            )
            assert found.leaf_hash.hex() == told["leaf_hash"]

    @rule(number=which, span=st.none() | st.tuples(st.integers(0, 400), st.integers(0, 80_000)))
    def read_content(self, number: int, span: tuple[int, int] | None) -> None:
        session = self.sessions[number]
        headers = {} if span is None else {"range": f"bytes={span[0]}-{span[0] + span[1]}"}
        answer = self.api.processor("GET", self.path(session, "/content"), "replay", headers=headers)
        if not self._is_there(session, answer):
            return
        end = session.end if session.sealed is None else session.sealed.chunk_count
        whole = b"".join(chunk.plaintext for _, chunk in sorted(session.chunks.items()))
        if gaps := session.gaps(end):
            assert _is(answer, 409, "chunks-missing")["missing"] == gaps
        elif span is None:
            _is(answer, 200)
            assert answer.content == whole
        elif span[0] >= len(whole):
            _is(answer, 416, "range-not-satisfiable")
        else:
            _is(answer, 206)
            assert answer.content == whole[span[0] : span[0] + span[1] + 1]

    @rule(number=which, role=st.sampled_from(["record", "replay", "audit"]))
    def read_progress(self, number: int, role: str) -> None:
        session = self.sessions[number]
        answer = self.api.processor("GET", self.path(session), role)
        if session.status == "none":
            _is(answer, 404, "session-not-found")
            return
        told, sealed = _is(answer, 200), session.sealed
        end = session.end if sealed is None else sealed.chunk_count
        assert told == told | {
            "status": session.status,
            "next_index": end,
            "missing": session.gaps(end),
            "missing_truncated": False,
            "chunk_count": len(session.chunks),
            "plaintext_bytes": session.total("plaintext_bytes"),
            "envelope_bytes": session.total("envelope_bytes"),
            "held": session.held,
            "root": None if sealed is None else sealed.root.hex(),
            "sealed_at": None if sealed is None else sealed.sealed_at,
        }
        assert (told["shredded_at"] is None) == (session.status != "shredded")

    @rule(number=which)
    def read_manifest_and_receipt(self, number: int) -> None:
        session = self.sessions[number]
        for more in ("/manifest", "/receipt"):
            answer = self.api.storage("GET", self.path(session, more))
            if session.status == "none":
                _is(answer, 404, "session-not-found")
            elif session.sealed is None:
                _is(answer, 409, "session-open")
            elif more == "/manifest":
                _is(answer, 200)
                assert answer.content == session.sealed.to_bytes()
            else:
                _is(answer, 200)
                found = receipt.from_bytes(answer.content)
                assert found.manifest == session.sealed
                if found.batch is not None:
                    receipt.verify_batch(found)

    @rule(number=which, index=indexes)
    def read_proof(self, number: int, index: int) -> None:
        session = self.sessions[number]
        answer = self.api.storage("GET", self.path(session, f"/chunks/{index}/proof"))
        if session.status == "none":
            _is(answer, 404, "session-not-found")
        elif session.sealed is None:
            _is(answer, 409, "session-open")
        elif index not in session.chunks:
            _is(answer, 404, "chunk-not-found")
        else:
            _is(answer, 200)
            found = proof.from_bytes(answer.content)
            found.verify_in(session.sealed)
            assert found.leaf_hash.hex() == session.chunks[index].answer["leaf_hash"]

    @rule(number=which)
    def list_chunks(self, number: int) -> None:
        session = self.sessions[number]
        answer = self.api.storage("GET", self.path(session, "/chunks"))
        if session.status == "none":
            _is(answer, 404, "session-not-found")
        else:
            found = [one["index"] for one in _is(answer, 200)["chunks"]]
            assert found == sorted(session.chunks)

    @precondition(lambda self: self.restarts < 1 and any(session.chunks for session in self.sessions))
    @rule(rotating=st.booleans(), chance=st.integers(0, 2))
    def restart(self, rotating: bool, chance: int) -> None:
        if chance:  # it takes a second, and other rules a few milliseconds
            return
        self.restarts += 1
        if rotating:
            self.rig.rotate()
        else:
            self.rig.stack.restart("processor")

    def teardown(self) -> None:
        """At the end all is read once more, whatever was done last."""
        for number in range(2):
            self.read_progress(number, "audit")
            self.read_content(number, None)
            self.read_manifest_and_receipt(number)
            self.list_chunks(number)


@pytest.mark.timeout(0 if CHOSEN else 180)
def test_any_order_is_as_the_model_says(rig: Rig) -> None:
    run_state_machine_as_test(
        lambda: Machine(rig),
        settings=settings(
            max_examples=int(CHOSEN or EXAMPLES),
            stateful_step_count=STEPS,
            derandomize=CHOSEN is None,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    assert json.loads(rig.api.storage("GET", "/api/v1/sessions").text)["sessions"]
