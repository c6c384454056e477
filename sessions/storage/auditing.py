"""The audit trail as the service runs it: what writes it, what reads it, and what seals its days."""

from dataclasses import dataclass

from sessions.runtime.audit import Audit
from sessions.runtime.health import Check
from sessions.runtime.times import Clock
from sessions.storage.audit_chunks import WithTrail
from sessions.storage.audit_seal import LEASE_SECONDS, DailySeal
from sessions.storage.audit_trail import Trail
from sessions.storage.mongo import Database, Readiness
from sessions.storage.mongo_audit import MongoEvents
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_lease import MongoLease
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Auditing:
    """The parts. `chunks` and `sealer` are of all sessions, those of the trail included."""

    events: MongoEvents
    trail: Trail
    audit: Audit
    chunks: WithTrail
    sealer: Sealer
    seal: DailySeal

    async def tell(self, readiness: Readiness) -> None:
        """Write what is noted, until cancelled; not before the collection is there."""
        await readiness.established.wait()
        await self.audit.run()

    def check(self) -> Check:
        """For `/health`: whichever part is not well."""
        return Check("degraded", self.audit.problem) if self.audit.problem else self.seal.check()


def build(db: Database, service: str, holder: str, clock: Clock) -> Auditing:
    """Put the parts together, for a service of that name and a process that no other is called like.

    `clock` is for the seals of recordings, and for when a day is over.
    """
    events, sessions, stored = MongoEvents(db), MongoSessions(db), MongoChunks(db)
    trail = Trail(events, sessions, service)
    chunks = WithTrail(stored, stored, events)
    sealer = Sealer(sessions, chunks, MongoTiles(db), clock)
    seal = DailySeal(trail, events, sealer, MongoLease(db, "audit", holder, LEASE_SECONDS), clock)
    return Auditing(events, trail, Audit(service, trail), chunks, sealer, seal)
