"""What the replicas of storage share about time, processors and seals, put together."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sessions.storage.activity import Activity
from sessions.storage.mongo import Database, Readiness
from sessions.storage.mongo_activity import MongoActivity
from sessions.storage.mongo_closing import MongoClosing
from sessions.storage.mongo_processors import MongoProcessors
from sessions.storage.mongo_uptime import MongoUptime
from sessions.storage.processors import Registry
from sessions.storage.seal_desk import SealDesk
from sessions.storage.sealing import Sealer
from sessions.storage.store import SessionStore
from sessions.storage.uptime import BEAT_SECONDS, UptimeClock

_BEATS_PER_LIMIT: Final = 20
"""Beats within the shortest time that is counted in uptime."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The parts."""

    uptime: UptimeClock
    activity: Activity
    registry: Registry
    desk: SealDesk

    async def run_uptime(self, readiness: Readiness) -> None:
        """Count storage's uptime until cancelled."""
        await _ready(readiness, self.uptime.run)

    async def run_desk(self, readiness: Readiness) -> None:
        """Carry out seals that have waited, until cancelled."""
        await _ready(readiness, self.desk.run)


async def _ready(readiness: Readiness, run: Callable[[], Awaitable[None]]) -> None:
    await readiness.established.wait()
    await run()


def build(db: Database, sessions: SessionStore, sealer: Sealer, idle_seconds: float, wait_seconds: float) -> Replicas:
    """Put the parts together; `idle_seconds` of 0 means that no session is sealed for being idle."""
    shortest = min(idle_seconds or math.inf, wait_seconds)
    uptime = UptimeClock(MongoUptime(db), min(BEAT_SECONDS, shortest / _BEATS_PER_LIMIT))
    activity = Activity(MongoActivity(db), uptime, idle_seconds)
    orders = MongoClosing(db)
    registry = Registry(MongoProcessors(db), orders, uptime, wait_seconds)
    desk = SealDesk(sessions, sealer, orders, registry=registry, uptime=uptime, activity=activity)
    for act in (activity.set_back, registry.set_back, desk.set_back):
        uptime.on_set_back(act)
    return Replicas(uptime, activity, registry, desk)
