"""Two processors and the replicas of session-storage that they share, each part to be cut off, stopped and set back.

Storage is whole behind its HTTP interface, on the stores that it is given. A request goes to one of its replicas, in
this process or through a socket, over a wire that each processor has of its own.
"""

import asyncio
import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from sessions.core import envelope
from sessions.core.key_ring import key_from_json
from sessions.core.types import DekId, SessionId
from sessions.processor import crypt
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.delivery import Delivery
from sessions.processor.drainer import Drainer
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.pipeline import Submitter
from sessions.processor.promises import Promises
from sessions.processor.recording import Recording
from sessions.processor.reporting import Identity, Reporter
from sessions.processor.seal_orders import SealOrders
from sessions.processor.session_desk import SessionDesk
from sessions.processor.spool import Spool
from sessions.processor.spool_format import HEADER_BYTES, Kind, read_header
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_errors import is_transient
from sessions.processor.storage_watch import StorageWatch
from sessions.processor.wire import Answer, BrokenOffError, NoAnswerInTimeError, NoConnectionError, Wire
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.tasks import end_all
from sessions.storage import processor_routes, routes, submit
from sessions.storage.activity import Activity, ActivityStore
from sessions.storage.anchor import BatchReader
from sessions.storage.chunk_limits import ChunkLimits
from sessions.storage.evidence import Evidence
from sessions.storage.heads import Sessions
from sessions.storage.idle import IdleSealer
from sessions.storage.ingest import Intake
from sessions.storage.ledger import Ledger
from sessions.storage.memory import MemoryChunks, MemorySessions, MemoryTiles
from sessions.storage.memory_anchoring import MemoryBatches
from sessions.storage.memory_replicas import MemoryActivity, MemoryClosing, MemoryProcessors, MemoryUptime
from sessions.storage.mongo import Readiness
from sessions.storage.processors import ProcessorStore, Registry
from sessions.storage.progress import ProgressReader
from sessions.storage.reads import Reads
from sessions.storage.retention import Terms
from sessions.storage.seal_desk import SealDesk
from sessions.storage.seal_orders import ClosingStore
from sessions.storage.sealing import Sealer
from sessions.storage.shredding import Shredder
from sessions.storage.store import BodyStore, EnvelopeStore, ShredReason, ShredStore, TileStore
from sessions.storage.uptime import UptimeClock, UptimeStore
from tests.unit.processor.servers import MIB, TOKEN, OneToken, serving
from tests.unit.processor.spools import segments_in
from tests.unit.processor.virtual_time import LoopTime
from tests.unit.runtime.apps import app_of
from tests.unit.storage.chunks import EPOCH, ample_disk

REPLICAS = 2
IDLE_SECONDS = 300.0
WAIT_SECONDS = 600.0
RING_SECONDS = 100.0
Carry = Callable[[str, str, Sequence[Any], Mapping[str, str]], Awaitable[Answer]]


class SessionStores(Sessions, ShredStore, Protocol):
    """Sessions, and which of them are being shredded."""


class ChunkStores(EnvelopeStore, BodyStore, Protocol):
    """Chunks, and the bodies of their envelopes."""


@dataclass
class Stores(ABC):
    """The stores on one database, whose content can be kept and put back."""

    sessions: SessionStores
    chunks: ChunkStores
    tiles: TileStore
    batches: BatchReader
    uptime: UptimeStore
    activity: ActivityStore
    processors: ProcessorStore
    orders: ClosingStore

    @abstractmethod
    async def dump(self) -> Any:
        """Return everything that the database holds."""

    @abstractmethod
    async def load(self, dumped: Any) -> None:
        """Set the database back to what `dump` returned."""


class MemoryStores(Stores):
    """The twins."""

    def __init__(self) -> None:
        sessions = MemorySessions()
        super().__init__(
            sessions=sessions,
            chunks=MemoryChunks(),
            tiles=MemoryTiles(),
            batches=MemoryBatches(),
            uptime=MemoryUptime(),
            activity=MemoryActivity(sessions),
            processors=MemoryProcessors(),
            orders=MemoryClosing(sessions),
        )

    @property
    def _parts(self) -> list[Any]:
        records = [self.sessions.records, self.chunks.records, self.chunks.bodies, self.tiles.tiles]
        return [*records, self.processors.records, self.activity._noted]

    async def dump(self) -> Any:
        parts = [dict(part) for part in self._parts]
        parts[1] = {name: dict(chunks) for name, chunks in parts[1].items()}
        return parts, set(self.sessions.shredding), self.uptime.uptime

    async def load(self, dumped: Any) -> None:
        parts, shredding, self.uptime.uptime = dumped
        for part, before in zip(self._parts, parts, strict=True):
            part.clear()
            part.update(before)
        for name, chunks in self.chunks.records.items():
            self.chunks.records[name] = dict(chunks)
        self.sessions.shredding = set(shredding)


class _Clocks:
    """Time as storage's hosts have it."""

    def __init__(self) -> None:
        self.time, self.seconds = EPOCH, 0.0

    def go_on(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.seconds += seconds


class Replica:
    """One process of storage: what it keeps in memory goes with it."""

    def __init__(self, stores: Stores, clocks: _Clocks) -> None:
        self.uptime = UptimeClock(stores.uptime, monotonic=lambda: clocks.seconds)
        self.activity = Activity(stores.activity, self.uptime, IDLE_SECONDS, lambda: clocks.seconds)
        self.registry = Registry(stores.processors, stores.orders, self.uptime, WAIT_SECONDS, lambda: clocks.seconds)
        sealer = Sealer(stores.sessions, stores.chunks, stores.tiles, lambda: clocks.time)
        self.desk = SealDesk(
            stores.sessions,
            sealer,
            stores.orders,
            registry=self.registry,
            uptime=self.uptime,
            activity=self.activity,
        )
        self.intake = Intake(stores.sessions, stores.chunks, self.activity, LoopTime().monotonic)
        terms = Terms(clock=lambda: clocks.time)
        progress = ProgressReader(stores.chunks)
        parts = (self.activity, self.registry, self.intake, progress, self.desk)
        for act in [part.set_back for part in parts]:
            self.uptime.on_set_back(act)
        self.ledger = Ledger(
            stores.sessions,
            sealer,
            self.desk,
            progress,
            batches=stores.batches,
            terms=terms,
            opened=self.intake.opened,
            monotonic=lambda: clocks.seconds,
        )
        self.shredder = Shredder(stores.sessions, stores.sessions, stores.chunks, terms)
        self.idle = IdleSealer(self.activity, self.ledger, _Leading(), IDLE_SECONDS)
        self.terms, self.sessions = terms, stores.sessions
        self.evidence = Evidence(self.ledger, stores.chunks, stores.chunks, stores.tiles)


class _Host:
    """Where processes of storage run, one after the other: the routes are made once, which takes its time."""

    def __init__(self) -> None:
        self.replica: Replica | None = None
        readiness = Readiness(None)
        readiness.established.set()
        limit = submit.body_limit(MIB)
        ledger, shredder, uptime = _Part(self, "ledger"), _Part(self, "shredder"), _Part(self, "uptime")
        endpoint = submit.SubmitEndpoint(
            _Part(self, "intake"),
            OneToken(),
            readiness=readiness,
            disk=ample_disk(),
            budget=ByteBudget(4 * limit),
            limit_bytes=limit,
        )
        self.app = app_of(
            routes.router(ledger, shredder, _Part(self, "evidence"), readiness, Reads(128 * MIB)),
            processor_routes.router(
                _Part(self, "registry"),
                _Part(self, "sessions"),
                uptime,
                _Part(self, "terms"),
                readiness,
                limits=ChunkLimits(MIB),
            ),
            authenticator=OneToken(),
            hot_routes=[submit.route(endpoint)],
        )


class _Part:
    """A part of the process that runs on a host now."""

    def __init__(self, host: _Host, name: str) -> None:
        self._host, self._name = host, name

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(self._host.replica, self._name), name)


@cache
def _hosts() -> list[_Host]:
    return [_Host() for _ in range(REPLICAS)]


class _Leading:
    """A lease that is always had."""

    async def acquire(self) -> Any:
        return self


class StorageSide:
    """The replicas of storage, and their database."""

    def __init__(self, stores: Stores, random_: random.Random) -> None:
        self.stores, self.clocks = stores, _Clocks()
        self._random = random_
        self.restart()

    def some(self) -> Replica:
        """The one that a balancer would choose."""
        return self._random.choice(self.replicas)

    def _app(self) -> Any:
        return self._random.choice(_hosts()).app

    def restart(self) -> None:
        """All of them begin again, with nothing in memory."""
        self.replicas = []
        for host in _hosts():
            host.replica = Replica(self.stores, self.clocks)
            self.replicas.append(host.replica)

    async def go_on(self, seconds: float) -> None:
        """Storage is up for so long, and its replicas have seen it."""
        self.clocks.go_on(seconds)
        seen = await self.stores.uptime.read()
        await self.stores.uptime.beat(seen, seconds)
        for replica in self.replicas:
            await replica.uptime.read()

    async def carry(self, method: str, target: str, pieces: Sequence[Any], headers: Mapping[str, str]) -> Answer:
        """Carry a request to one of them, without a socket."""
        return await _asked(self._app(), method, target, pieces, headers)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Carry]:
        """Serve over HTTP; gives what carries a request there."""

        async def chosen(scope: Any, receive: Any, send: Any) -> None:
            await self._app()(scope, receive, send)

        async with serving(chosen) as url:
            wire = Wire(url, {"authorization": f"Bearer {TOKEN}"}, 20, None)

            async def carry(method: str, target: str, pieces: Sequence[Any], headers: Mapping[str, str]) -> Answer:
                return await wire.request(method, target, pieces, headers)

            try:
                yield carry
            finally:
                wire.close()

    async def shred(self, name: SessionId) -> None:
        """Shred a session for an administrator."""
        await self.some().shredder.shred(name, ShredReason.REQUESTED, "admin-1")


async def _asked(app: Any, method: str, target: str, pieces: Sequence[Any], headers: Mapping[str, str]) -> Answer:
    path, _, query = target.partition("?")
    body = b"".join(map(bytes, pieces))
    said = {**headers, "authorization": f"Bearer {TOKEN}", "content-length": str(len(body)), "host": "storage"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in said.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    answered: list[Any] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        await asyncio.Event().wait()  # nobody hangs up
        raise AssertionError

    async def send(message: Any) -> None:
        answered.append(message)

    await app(scope, receive, send)
    names = {name.decode(): value.decode() for name, value in answered[0]["headers"]}
    return Answer(answered[0]["status"], names, b"".join(one.get("body", b"") for one in answered[1:]))


def _problem(status: int, code: str) -> Answer:
    return Answer(status, {"retry-after": "1"}, json.dumps({"code": code, "detail": "as a fault"}).encode())


PROBLEMS = {
    "unavailable": (503, "database-unavailable"),
    "full": (507, "storage-full"),
    "overloaded": (503, "overloaded"),
    "failed": (500, "internal"),
}
FAULTS = ["none", "cut", "stuck", "dropped", "deaf", "broken", "lost", *PROBLEMS]
"""What may become of a request. `stuck` is carried out later, when nobody waits for it any more."""


class FaultyWire:
    """The way from one processor to storage."""

    def __init__(self, carry: Carry, random_: random.Random) -> None:
        self._carry = carry
        self._random = random_
        self.always = "none"
        self.faults: list[str] = []
        self.stuck: list[Callable[[], Awaitable[Answer]]] = []
        self.stops_in: int | None = None
        self.stopped = asyncio.Event()

    async def request(
        self,
        method: str,
        target: str,
        pieces: Sequence[Any] = (),
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """See `Wire`."""

        async def carry() -> Answer:
            return await self._carry(method, target, pieces, headers or {})

        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        await self._perhaps_stop(carry)
        fault = self.faults.pop(0) if self.faults else self.always
        if fault in PROBLEMS and not (fault == "full" and (method == "GET" or "/seal" in target)):
            return _problem(*PROBLEMS[fault])
        if fault == "cut":
            raise NoConnectionError("cut")
        if fault == "broken":
            raise BrokenOffError("broken")
        if fault in ("stuck", "dropped"):
            if fault == "stuck" and method != "GET":
                self.stuck.append(carry)
            raise NoAnswerInTimeError(fault)
        answer = await carry()
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if fault == "deaf":
            raise NoAnswerInTimeError(fault)
        if fault == "lost":
            raise BrokenOffError(fault)
        return answer

    async def _perhaps_stop(self, carry: Callable[[], Awaitable[Answer]]) -> None:
        """The process that asks ends here, before or after the request was carried out."""
        if self.stops_in is None:
            return
        self.stops_in -= 1
        if self.stops_in < 0:
            if self._random.randrange(2):
                await carry()
            self.stopped.set()
            await asyncio.Event().wait()

    def heal(self) -> None:
        """Let everything through from now on; what is stuck stays stuck."""
        self.always, self.faults, self.stops_in = "none", [], None
        self.stopped.clear()

    def close(self) -> None:
        """See `Wire`."""


class Processor:
    """A processor: its folder stays, all else goes with its process."""

    def __init__(
        self, name: str, folder: Path, wire: FaultyWire, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor
    ) -> None:
        self.host, self.folder, self.wire = name, folder, wire
        self._wrapper, self._executor = wrapper, executor
        self.process = 0
        self.refused: set[tuple[SessionId, int | None]] = set()
        self.start(lambda: 0.0)

    def start(self, clock: Callable[[], float]) -> None:
        """Begin, with what an earlier process left in the folder."""
        self._clock = clock
        self.process += 1
        spool = self.spool = Spool(segments_in(self.folder, 4096), SpoolRoom(8 * MIB, 0))
        spool.open()
        self.promises = Promises(self.folder / "promises.json")
        self.promises.load()
        identity = Identity(self.folder, self.host)
        self.name = identity.name
        storage = self._storage = StorageClient("http://storage", TOKEN, 20)
        storage._wire = storage._submits = storage._status = storage._seals = self.wire  # type: ignore[assignment]
        self.watch = StorageWatch(storage.reachable, 5.0)
        self.spooling = spooling = Spooling(spool, self.watch, self.promises, introduced=identity.introduced)
        self.rings = KeyRings(self._wrapper, storage, 100, RING_SECONDS, clock, spooling=spooling)
        self._submitter = Submitter(storage, self.watch)
        self.acknowledged = Acknowledged()
        self.recording = Recording(
            self.rings,
            self._submitter,
            storage,
            self._executor,
            3,
            spooling=spooling,
            acknowledged=self.acknowledged,
        )
        self.reporter = Reporter(identity, spooling, storage, self.acknowledged, (self.rings.set_back,))
        self.orders = SealOrders(storage, spooling, self.reporter)
        self._watch_orders()
        delivery = Delivery(spooling, storage, self._submitter, self.recording, rings=self.rings, orders=self.orders)
        self.drainer = Drainer(spooling, delivery, 1_000_000)
        self.desk = SessionDesk(storage, spooling, self.drainer, self.orders)

    def _watch_orders(self) -> None:
        place = self.orders.place

        async def watched(name: SessionId, chunk_count: int | None, **more: Any) -> Any:
            try:
                return await place(name, chunk_count, **more)
            except DomainError as error:
                if not is_transient(error):
                    self.refused.add((name, chunk_count))
                raise

        self.orders.place = watched  # type: ignore[method-assign]

    async def look(self) -> None:
        """Ask whether storage is there, as the watch does while it is away."""
        if self.watch.away and await self.watch._problem() is None:
            self.watch.gone.clear()
            self.watch.back.set()

    async def drain(self) -> None:
        """Deliver once, as if the pauses after failures were over."""
        if not self.watch.away:
            self.drainer._order.admit(math.inf)
            await self.drainer.round()

    async def end(self, *, kept: Mapping[Path, bytes] | None = None) -> None:
        """End the process, with deliveries and requests under way; segments in `kept` were not dropped yet."""
        await end_all(self.drainer._deliveries.values())
        await end_all([*self._submitter._posts, *self.rings._fetching.values(), *self.spooling._keeping.values()])
        if self.watch._asking is not None:
            await end_all([self.watch._asking])
        await self.spool.close()
        for file, data in (kept or {}).items():
            if not file.exists():
                file.write_bytes(data)

    def segments(self) -> dict[Path, bytes]:
        """The spool's files as they are now."""
        return {file: file.read_bytes() for file in self.folder.glob("*.seg")}

    def opened(self, session: SessionId, key: Mapping[str, Any], index: int, payload: bytes) -> bytes:
        """The content of an envelope, by the key that is with it."""
        return crypt.open_envelope(self._wrapper.unwrap(session, key_from_json(dict(key))), session, index, payload)

    async def spooled(self) -> dict[tuple[SessionId, int], set[bytes]]:
        """The contents in the spool, each opened with a key that is there, too."""
        found: dict[tuple[SessionId, int], set[bytes]] = {}
        for session in list(self.spool.sessions.values()):
            keys = await self.spooling.keys(session.session_id)
            deks = {key.dek_id: self._wrapper.unwrap(session.session_id, key) for key in keys}
            for entry in [*session.earlier, *session.chunks.values()]:
                payload = await self.spooling.payload(entry)
                if payload is not None:
                    content = _content(deks, session.session_id, entry.index, payload)
                    assert content is not None, "an envelope in the spool has its key there"
                    found.setdefault((session.session_id, entry.index), set()).add(content)
        return found

    def quarantined(self) -> dict[tuple[SessionId, int], dict[bytes, str]]:
        """The contents in the quarantine with their reasons, each opened with the key that lies beside it."""
        found: dict[tuple[SessionId, int], dict[bytes, str]] = {}
        for file in sorted((self.folder / "quarantine").glob("*.entry")):
            data, facts = file.read_bytes(), json.loads(file.with_suffix(".json").read_bytes())
            header = read_header(data)
            assert header is not None
            if header.kind is Kind.ENVELOPE:
                name, index = SessionId(facts["session_id"]), facts["index"]
                content = self.opened(name, facts["key"], index, data[HEADER_BYTES:])
                found.setdefault((name, index), {})[content] = facts["reason"]
        return found

    def metadata_aside(self) -> list[tuple[SessionId, Any]]:
        """The metadata of openings in the quarantine."""
        found = []
        for file in (self.folder / "quarantine").glob("*.entry"):
            data = file.read_bytes()
            header = read_header(data)
            if header is not None and header.kind is Kind.OPENING:
                opening = json.loads(data[HEADER_BYTES:])
                found.append((SessionId(opening["session_id"]), opening["metadata"]))
        return found


async def contents_at(stores: Stores, wrapper: FileKeyWrapper, name: SessionId) -> dict[int, bytes | None]:
    """What storage has of a session, opened with its ring; None for what the ring has no key of, or no body."""
    record = await stores.sessions.get(name)
    if record is None:
        return {}
    deks = {key.dek_id: wrapper.unwrap(name, key) for key in record.keys}
    chunks = await stores.chunks.page(name, 0, 1000)
    bodies = await stores.chunks.read_many(name, chunks)
    return {
        chunk.index: None if body is None else _content(deks, name, chunk.index, body)
        for chunk, body in zip(chunks, bodies, strict=True)
    }


def _content(deks: Mapping[DekId, Dek], name: SessionId, index: int, payload: bytes) -> bytes | None:
    dek = deks.get(envelope.parse(payload).header.dek_id)
    return None if dek is None else crypt.open_envelope(dek, name, index, payload)
