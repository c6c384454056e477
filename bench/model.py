"""What a fleet would need, from what one machine was measured to do: `scripts/bench --model FILE`.

Every figure is a straight line through measured points, `each * count + once`. Lines are fitted on the small sizes and
held against the large ones, which they have not seen; `checks` has how far off they are. All the rest is arithmetic on
a `Workload`, whose assumptions are parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.ingest import KIB, MIB, SERVICES, Cell
from bench.results import Results

GIB: Final = 1024 * MIB
DAY_SECONDS: Final = 86_400
ANCHOR_GAS: Final = 46_161
FITTED_CELLS: Final = tuple(Cell(size, sessions) for size in (64 * KIB, MIB) for sessions in (8, 16, 64))
CHECKED_CELLS: Final = tuple(Cell(8 * MIB, sessions) for sessions in (1, 8, 64))
FITTED_SEALS: Final = (1_000, 10_000)
CHECKED_SEALS: Final = (100_000, 1_000_000)
FITTED_BATCHES: Final = (10, 100, 1_000)
CHECKED_BATCHES: Final = (10_000,)
STANDALONE_WRITES: Final = 2
"""A body is written to the journal and to its file."""
MEMBER_WRITES: Final = 4
"""In a replica set also to the oplog, and that to the journal."""


@dataclass(frozen=True, slots=True)
class Line:
    """`each * count + once`."""

    once: float
    each: float

    def at(self, count: float) -> float:
        """The value for a count."""
        return self.each * count + self.once

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> "Line":
        """The line of least squares of the relative errors, so that small points count as much as large ones.

        Neither part is negative: nothing becomes cheaper by being more.

        Raises:
            ValueError: there is no point, or one whose value is not above 0.
        """
        if not points or min(value for _, value in points) <= 0:
            raise ValueError("a line needs points that were measured, above 0")
        weights = [1 / value**2 for _, value in points]
        whole = sum(weights)
        middle_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / whole
        middle_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / whole
        spread = sum(w * (x - middle_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
        above = sum(w * (x - middle_x) * (y - middle_y) for w, (x, y) in zip(weights, points, strict=True))
        each = max(0.0, above / spread) if spread else 0.0
        once = middle_y - each * middle_x
        if once < 0:
            each = sum(w * x * y for w, (x, y) in zip(weights, points, strict=True)) / sum(
                w * x * x for w, (x, _) in zip(weights, points, strict=True)
            )
        return cls(max(0.0, once), each)


@dataclass(frozen=True, slots=True)
class Check:
    """A line, held against a point that it was not fitted on."""

    what: str
    unit: str
    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """How far off it is, of what was measured: 0.1 is a tenth too much."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Workload:
    """What is assumed of the recordings.

    Attributes:
        sessions_a_day: Sessions.
        session_minutes: Length of one.
        chunk_bytes: Plaintext of a chunk.
        chunk_seconds: Time between two chunks of a session.
        peak: How many times the mean of a day its busiest time is.
        keep_days: How long a recording is kept.
        members: Members of each replica set of MongoDB; 1 is a standalone server.
        interval_seconds: Least time between two batches.
    """

    sessions_a_day: float = 1e6
    session_minutes: float = 10
    chunk_bytes: int = 64 * KIB
    chunk_seconds: float = 1
    peak: float = 3
    keep_days: float = 90
    members: int = 3
    interval_seconds: float = 60

    @property
    def chunks(self) -> float:
        """Chunks of a session."""
        return self.session_minutes * 60 / self.chunk_seconds

    @property
    def sessions_a_second(self) -> float:
        """At the busiest time."""
        return self.sessions_a_day / DAY_SECONDS * self.peak

    @property
    def bytes_a_second(self) -> float:
        """Plaintext, at the busiest time."""
        return self.sessions_a_second * self.chunks * self.chunk_bytes

    @property
    def open_at_once(self) -> float:
        """Sessions, at the busiest time."""
        return self.sessions_a_second * self.session_minutes * 60


@dataclass(frozen=True, slots=True)
class Fit:
    """One machine, in lines.

    Attributes:
        cpu: CPU seconds of each process for 1 GiB, by chunks in it.
        seal: Seconds to seal a session, by its chunks.
        batch: Seconds to make a batch, by its sessions.
        disk: Bytes on disk, by the names that `bench/disk.py` gives.
        checks: The lines against what they were not fitted on.
    """

    cpu: Mapping[str, Line]
    seal: Line
    batch: Line
    disk: Mapping[str, float]
    checks: tuple[Check, ...]

    def cpu_cores(self, process: str, load: Workload) -> float:
        """CPU seconds a second of a process, over all its replicas."""
        return self.cpu[process].at(GIB / load.chunk_bytes) * load.bytes_a_second / GIB


DISK: Final = {
    "record": "disk | a chunk's record",
    "body": "disk | bodies, of each envelope byte",
    "envelope": "disk | envelope bytes, of each byte recorded",
    "session": "disk | a session and its place in a batch",
    "index": "disk | of these, indexes",
}


def fit(results: Results) -> Fit:
    """Fit all lines on the small sizes, and hold them against the large ones, as far as these were measured.

    Raises:
        ValueError: names what was not measured.
    """
    checks: list[Check] = []

    def line(what: str, unit: str, fitted: Mapping[str, float], checked: Mapping[str, float]) -> Line:
        # What took no time was below the resolution of the clock of processes, 10 ms.
        points = [(count, value) for name, count in fitted.items() if (value := results.median(name))]
        if not points:
            raise ValueError(f"the run has no {next(iter(fitted))!r}, nor any like it: measure without --only")
        found = Line.through(points)
        for name, count in checked.items():
            if value := results.median(name):
                checks.append(
                    Check(f"{what}, {name.partition(' | ')[0].removeprefix('ours ')}", unit, found.at(count), value)
                )
        return found

    cpu = {}
    for process in SERVICES:
        fitted, checked = (
            {f"ours {cell.name} | CPU {process}": GIB / cell.chunk_bytes for cell in cells}
            for cells in (FITTED_CELLS, CHECKED_CELLS)
        )
        cpu[process] = line(f"CPU of {process}", "s/GiB", fitted, checked)
    seals = [{f"seal {size} | time": float(size) for size in sizes} for sizes in (FITTED_SEALS, CHECKED_SEALS)]
    batches = [
        {f"batch of {size} | made in": float(size) for size in sizes} for sizes in (FITTED_BATCHES, CHECKED_BATCHES)
    ]
    seal, batch = line("time", "s", *seals), line("time", "s", *batches)
    disk = {}
    for short, name in DISK.items():
        value = results.median(name)
        if value is None:
            raise ValueError(f"the run has no {name!r}: measure without --only")
        disk[short] = value
    return Fit(cpu, seal, batch, disk, tuple(checks))


@dataclass(frozen=True, slots=True)
class Need:
    """What a workload asks of one resource, at its busiest time.

    Attributes:
        resource: In a reader's words.
        needed: How much.
        has: What one unit of it gives.
        unit: Of both.
        of: What a unit is.
    """

    resource: str
    needed: float
    has: float
    unit: str
    of: str

    @property
    def share(self) -> float:
        """Of one unit: above 1 it takes several."""
        return self.needed / self.has


def disk_bytes_a_day(found: Fit, load: Workload) -> float:
    """What a day's sessions take on the disks of one member of each set."""
    chunk = load.chunk_bytes * found.disk["envelope"] * found.disk["body"] + found.disk["record"]
    return load.sessions_a_day * (load.chunks * chunk + found.disk["session"])


def needs(found: Fit, load: Workload, batch_max: int = 10_000) -> list[Need]:
    """Each resource, for `bench/model_tables.py`.

    A replica of session-storage is one event loop, so it has one core; the other processes have threads for more. A
    disk is taken to write 500 MB/s and to hold 4 TB, a server to keep 16 GiB of indexes in memory. The CPU of a
    `mongod` was measured on a standalone one; in a replica set it is taken to grow as the bytes that it writes do.
    """
    writes = STANDALONE_WRITES if load.members == 1 else MEMBER_WRITES
    stored = load.bytes_a_second * found.disk["envelope"]
    cycle = max(load.interval_seconds, found.batch.at(batch_max))
    return [
        Need("CPU of chunk-processor", found.cpu_cores("processor", load), 2, "cores", "processor of 2 cores"),
        Need("CPU of session-storage", found.cpu_cores("storage", load), 1, "cores", "replica"),
        Need("sealing", load.sessions_a_second * found.seal.at(load.chunks), 1, "s/s", "replica"),
        Need(
            "CPU of mongod",
            found.cpu_cores("mongod", load) * writes / STANDALONE_WRITES,
            2,
            "cores",
            "shard of 2 cores",
        ),
        Need("bytes written by MongoDB", stored * writes / 1e6, 500, "MB/s", "shard's disk"),
        Need("bytes kept by MongoDB", disk_bytes_a_day(found, load) * load.keep_days / 1e12, 4, "TB", "shard's disk"),
        Need(
            "indexes of sessions",
            load.sessions_a_day * load.keep_days * found.disk["index"] / GIB,
            16,
            "GiB",
            "shard's memory",
        ),
        Need("batching, one lease", load.sessions_a_second, batch_max / cycle, "sessions/s", "there is one alone"),
        Need("anchors", DAY_SECONDS / load.interval_seconds, DAY_SECONDS / 12, "a day", "a block each 12 s"),
    ]
