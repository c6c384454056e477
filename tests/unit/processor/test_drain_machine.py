"""Recording and draining in random orders, before a session-storage that is away, slow or full, or loses its answers.

Storage is real over HTTP, on its twins, and so are the spool's files. The model is what was acknowledged: in the end it
is at storage, in the seal if there is one, or set aside because storage has something else, and can be read again.
`LUCID_DRAIN_MACHINE_EXAMPLES=500 scripts/test tests/unit/processor/test_drain_machine.py` tries more orders.
"""

import asyncio
import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sessions.core import envelope
from sessions.core.key_ring import key_from_json
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt
from sessions.processor.keys import FileKeyWrapper
from sessions.processor.spool_format import HEADER_BYTES, Kind, read_header
from sessions.processor.storage_answers import FrameAnswer
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import RequestFailedError
from sessions.processor.wire import Answer
from sessions.runtime.errors import DomainError
from sessions.storage.sealing import covers, sealed_manifest
from tests.unit.processor.conftest import parts_of
from tests.unit.processor.servers import TOKEN, serving, storage_app
from tests.unit.processor.test_drainer import Desk, desk_of
from tests.unit.storage.chunks import House

T = TypeVar("T")
EXAMPLES = int(os.environ.get("LUCID_DRAIN_MACHINE_EXAMPLES", "10"))
STEPS = 25
SESSIONS = st.sampled_from([SessionId("a"), SessionId("b")])
INDEXES = st.integers(0, 4)
CONTENTS = st.sampled_from([b"one", b"two" * 300])
FAULTS = st.sampled_from(["none", "away", "full", "slow", "lost", "failed", "late"])
REFUSALS = {
    "storage-unavailable",
    "chunk-conflict",
    "session-sealed",
    "metadata-conflict",
    "overloaded",
    "chunks-missing",
    "chunk-count-mismatch",
    "session-not-found",
}


class Wire(StorageClient):
    """The way to storage; `faults` is what becomes of the next calls."""

    def __init__(self, url: str) -> None:
        super().__init__(url, TOKEN, 20)
        self.faults: list[str] = []

    async def _call(self, method: str, path: str, **options: Any) -> Answer:
        # Who reads needs no room.
        return await self._faulty(lambda: super(Wire, self)._call(method, path, **options), full=method != "GET")

    async def submit(self, envelopes: Sequence[bytes]) -> list[FrameAnswer]:
        return await self._faulty(lambda: super(Wire, self).submit(envelopes), full=True)

    async def _faulty(self, call: Callable[[], Awaitable[T]], *, full: bool) -> T:
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "away":
            raise DomainError("storage-unavailable", "away", retry_after_seconds=1)
        if fault == "failed":
            raise RequestFailedError("this request failed")
        if fault == "full" and full:
            raise DomainError("storage-full", "full", retry_after_seconds=30)
        answer = await call()
        if fault == "slow":
            await asyncio.sleep(0.01)
        if fault == "lost":
            raise DomainError("storage-unavailable", "its answer is lost", retry_after_seconds=1)
        if fault == "late":
            raise RequestFailedError("its answer came too late")
        return answer


class DrainMachine(RuleBasedStateMachine):
    @initialize(known=st.booleans(), away=st.booleans())
    def begin(self, known: bool, away: bool) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="drain-"))
        self.executor = ThreadPoolExecutor(1)
        self.wrapper = FileKeyWrapper({"one": os.urandom(32)})
        self.stack = contextlib.AsyncExitStack()
        self.house = House()
        self.acknowledged: dict[tuple[SessionId, int], set[bytes]] = {}
        self.late: set[tuple[SessionId, int]] = set()
        """Chunks that came after the seal, while nobody could tell: no seal can have them."""
        self.runner.run(self._begin())
        if known:
            self.open(SessionId("a"), "tower", theirs=True)
        if away:
            self.desk.away()

    async def _begin(self) -> None:
        url = await self.stack.enter_async_context(serving(storage_app(self.house)))
        self.wire = await self.stack.enter_async_context(Wire(url))
        self.other = parts_of(
            await self.stack.enter_async_context(StorageClient(url, TOKEN, 20)), self.wrapper, self.executor
        )
        self.desk: Desk = desk_of(self.folder, self.wire, self.wrapper, self.executor)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                self.runner.run(self._all_is_found())
            finally:
                self.runner.run(self._end())
                self.runner.close()
                self.executor.shutdown()
                shutil.rmtree(self.folder)

    async def _end(self) -> None:
        await self.desk.spool.close()
        await self.stack.aclose()

    async def _take(self, work: Any) -> Any:
        """What was answered, or None for a refusal that may be."""
        try:
            return await work
        except DomainError as error:
            if error.code not in REFUSALS:
                raise
            return None

    @rule(session=SESSIONS, index=INDEXES, content=CONTENTS, faults=st.lists(FAULTS, max_size=3))
    def put(self, session: SessionId, index: int, content: bytes, faults: list[str]) -> None:
        self.wire.faults = faults
        record = self.house.sessions.records.get(session)
        if self.runner.run(self._take(self.desk.put(index, content, session))) is not None:
            self.acknowledged.setdefault((session, index), set()).add(content)
            if record is not None and record.seal is not None:
                self.late.add((session, index))

    @rule(session=SESSIONS, index=INDEXES, content=CONTENTS)
    def another_processor_puts(self, session: SessionId, index: int, content: bytes) -> None:
        if self.runner.run(self._take(self.other.recording.record(session, ChunkIndex(index), content))) is not None:
            self.acknowledged.setdefault((session, index), set()).add(content)

    @rule(session=SESSIONS, host=st.sampled_from(["desk", "tower"]), theirs=st.booleans())
    def open(self, session: SessionId, host: str, theirs: bool) -> None:
        rings = self.other.rings if theirs else self.desk.rings
        self.runner.run(self._take(rings.open(session, {"host": host})))

    @rule(session=SESSIONS, count=st.one_of(st.none(), st.integers(1, 5)))
    @precondition(lambda self: self.desk.watch.away)
    def order_a_seal(self, session: SessionId, count: int | None) -> None:
        self.runner.run(self._take(self.desk.desk.seal(session, count)))

    @rule(session=SESSIONS, count=st.one_of(st.none(), st.integers(1, 5)), faults=st.lists(FAULTS, max_size=4))
    @precondition(lambda self: not self.desk.watch.away)
    def seal(self, session: SessionId, count: int | None, faults: list[str]) -> None:
        self.wire.faults = faults
        self.runner.run(self._take(self.desk.seal(count, session)))
        self.wire.faults = []

    @rule()
    def storage_goes_away(self) -> None:
        self.desk.away()

    @rule(faults=st.lists(FAULTS, max_size=6), rounds=st.integers(1, 3))
    def drain(self, faults: list[str], rounds: int) -> None:
        self.desk.back()
        self.wire.faults = faults
        self.runner.run(self._drain(rounds))
        self.wire.faults = []

    async def _drain(self, rounds: int) -> None:
        for _ in range(rounds):
            if self.desk.watch.away or not self.desk.spool.entries:
                return
            self.desk.drainer._order.admit(math.inf)  # as if the pauses after failures were over
            reporting = asyncio.create_task(self.desk.reporter.report())
            await self.desk.drainer.round()
            await asyncio.wait([reporting])
            error = reporting.exception()
            assert error is None or isinstance(error, DomainError)

    @rule(faults=st.lists(FAULTS, max_size=4))
    def crash(self, faults: list[str]) -> None:
        """In the middle of a drain: what was delivered comes back when its segment was not dropped."""
        segments = {file: file.read_bytes() for file in self.folder.glob("*.seg")}
        away = self.desk.watch.away
        if not away:
            self.drain(faults, 1)
        self.runner.run(self.desk.spool.close())
        for file, data in segments.items():
            file.write_bytes(data)
        self.desk = desk_of(self.folder, self.wire, self.wrapper, self.executor)
        if away:
            self.desk.away()

    async def _all_is_found(self) -> None:
        self.wire.faults = []
        await self.desk.drain()
        assert list(self.folder.glob("*.seg")) == []
        aside = self._set_aside()
        for (session, index), contents in self.acknowledged.items():
            found = set(aside.get((session, index), ()))
            with contextlib.suppress(DomainError):
                found.add(await self.other.recording.read(session, index))
                record = self.house.sessions.records[session]
                assert record.seal is None or covers(sealed_manifest(record), index), (session, index)
            assert contents <= found, (session, index)
        kept = self.desk.spool.quarantine.entries.values()
        assert {one.reason for one in kept} <= {"conflict", "metadata-refused", "left-out"}
        left_out = {(one.session_id, one.index) for one in kept if one.reason == "left-out"}
        assert left_out <= self.late, "no seal left out what the spool had acknowledged"

    def _set_aside(self) -> dict[tuple[SessionId, int], list[bytes]]:
        """The contents that were set aside, each opened with the key that lies beside it."""
        found: dict[tuple[SessionId, int], list[bytes]] = {}
        for file in (self.folder / "quarantine").glob("*.entry"):
            data, facts = file.read_bytes(), json.loads(file.with_suffix(".json").read_bytes())
            header = read_header(data)
            assert header is not None
            assert (facts["kind"], facts["entry_bytes"]) == (header.kind.name.lower(), len(data))
            if header.kind is Kind.ENVELOPE:
                payload = data[HEADER_BYTES:]
                read = envelope.parse(payload).header
                assert (facts["session_id"], facts["index"]) == (read.session_id, read.index)
                dek = self.wrapper.unwrap(read.session_id, key_from_json(facts["key"]))
                content = crypt.open_envelope(dek, read.session_id, int(read.index), payload)
                found.setdefault((read.session_id, int(read.index)), []).append(content)
        return found


TestDrainMachine = DrainMachine.TestCase
TestDrainMachine.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
