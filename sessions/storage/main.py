"""session-storage: the one place that names its parts.

python -m sessions.storage.main
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex
from typing import Final

import structlog
from fastapi import FastAPI

from sessions import __version__
from sessions.core.audit import Action, Outcome
from sessions.runtime import health, killpoints, log, server, tls, tracing
from sessions.runtime.app import make_app
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.health import Check
from sessions.runtime.metrics import watch_loop_lag, watched
from sessions.runtime.settings import ConfigurationError, exit_with, load
from sessions.runtime.tasks import Background, end_all
from sessions.runtime.tokens_watch import TokensWatch
from sessions.storage import (
    anchor_routes,
    anchoring,
    audit_routes,
    auditing,
    idle,
    key_routes,
    mongo_activity,
    mongo_audit,
    mongo_backlog,
    mongo_batches,
    mongo_closing,
    mongo_due,
    mongo_key_rings,
    mongo_scrub,
    mongo_sessions,
    processor_routes,
    retention_routes,
    routes,
    scrub_routes,
    scrubbing,
    submit,
)
from sessions.storage import replicas as replicas_of
from sessions.storage.backlog import Backlog
from sessions.storage.chunk_limits import ChunkLimits
from sessions.storage.console import site
from sessions.storage.disk import DiskWatch, free_bytes
from sessions.storage.evidence import Evidence
from sessions.storage.ingest import Intake
from sessions.storage.key_rings import Rings
from sessions.storage.killpoints import Point
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import Database, Readiness, close, connect
from sessions.storage.mongo_chunks import MongoChunks
from sessions.storage.mongo_clock import DatabaseClock
from sessions.storage.mongo_lease import MongoLease
from sessions.storage.mongo_sessions import MongoSessions
from sessions.storage.mongo_tiles import MongoTiles
from sessions.storage.progress import ProgressReader
from sessions.storage.reads import Reads
from sessions.storage.retention import Due
from sessions.storage.scrub import Scrubber
from sessions.storage.settings import StorageSettings
from sessions.storage.shredding import Shredder
from sessions.storage.sweeper import LEASE_SECONDS, Sweeper

_log = structlog.get_logger()
_RESUME_SECONDS: Final = 5
_RESUME_AT_ONCE: Final = 100


async def _resume(what: str, resume: Callable[[int], Awaitable[int]], readiness: Readiness) -> None:
    """Finish what a crash left half-way: at start, and now and then, for other replicas."""
    while True:
        try:
            if readiness.ready and (finished := await resume(_RESUME_AT_ONCE)):
                _log.info("resumed", what=what, count=finished)
        except DomainError as error:
            _log.warning("not_resumed", what=what, reason=error.detail)
        await asyncio.sleep(_RESUME_SECONDS if readiness.ready else 1)


def _scrub(
    settings: StorageSettings, db: Database, sessions: MongoSessions, trail: auditing.Auditing, holder: str
) -> tuple[Scrubber, mongo_scrub.MongoFindings, scrubbing.Scrubbing]:
    findings = mongo_scrub.MongoFindings(db)
    bodies = mongo_scrub.MongoBodyScan(db)
    scrubber = Scrubber(sessions, trail.chunks, MongoTiles(db), bodies, findings=findings, audit=trail.audit)
    lease = MongoLease(db, "scrub", holder, scrubbing.LEASE_SECONDS)
    return scrubber, findings, scrubbing.Scrubbing(scrubber, findings, lease, settings.scrub_bytes_per_second)


def build(settings: StorageSettings) -> FastAPI:
    """Wire the service.

    Raises:
        ConfigurationError: names the setting that cannot work.
    """
    tokens = TokensWatch(settings.tokens_file, settings.limits())
    authenticator = tokens.authenticator
    try:
        client, db = connect(settings.database_url(), settings.mongodb_database)
    except ValueError as error:
        raise ConfigurationError("MONGODB_URL", str(error)) from None
    clock = DatabaseClock()
    readiness = Readiness(
        db,
        *(
            part.ensure_indexes
            for part in (
                mongo_sessions,
                mongo_activity,
                mongo_closing,
                mongo_due,
                mongo_batches,
                mongo_backlog,
                mongo_key_rings,
            )
        ),
        mongo_audit.ensure_collection,
        clock.read,
    )
    sessions, chunks, tiles = MongoSessions(db), MongoChunks(db), MongoTiles(db)
    batches = mongo_batches.MongoBatches(db)
    terms = settings.terms(clock)
    shredder = Shredder(sessions, sessions, chunks, terms)
    due = Due(mongo_due.MongoDue(db), terms)
    holder = f"{socket.gethostname()}-{token_hex(4)}"
    trail = auditing.build(db, settings.service_name, holder, clock)
    sweeper = Sweeper(due, shredder, MongoLease(db, "retention", holder, LEASE_SECONDS), trail.audit)
    replicas = replicas_of.build(
        db, sessions, trail.sealer, settings.session_idle_seal_seconds, settings.processor_wait_seconds
    )
    activity = replicas.activity
    intake = Intake(sessions, chunks, activity)
    progress = ProgressReader(trail.chunks)
    replicas.uptime.on_set_back(intake.set_back)
    replicas.uptime.on_set_back(progress.set_back)
    ledger = Ledger(
        sessions,
        trail.sealer,
        replicas.desk,
        progress,
        batches=batches,
        terms=terms,
        opened=intake.opened,
        written=replicas.uptime.stir,
    )
    idle_lease = MongoLease(db, "idle", holder, idle.LEASE_SECONDS)
    idle_sealer = idle.IdleSealer(activity, ledger, idle_lease, settings.session_idle_seal_seconds)
    anchors = anchoring.build(settings, db, batches, clock)
    scrubber, findings, background_scrub = _scrub(settings, db, sessions, trail, holder)
    disk = DiskWatch(partial(free_bytes, db), settings.database_free_min_bytes)
    backlog = Backlog(mongo_backlog.MongoBacklog(db).unanchored, clock)
    budget = watched(ByteBudget(settings.inflight_max_bytes, owner_max_bytes=settings.inflight_max_bytes // 2))
    background = Background()
    reads = Reads(settings.reads_max_bytes)
    limits = ChunkLimits(settings.chunk_max_bytes)

    async def checks() -> Mapping[str, Check]:
        problem = await readiness.ping()
        database = Check("failed", f"MONGODB_URL: {problem}") if problem else Check("ok")
        return {
            "database": database,
            "disk": disk.check(),
            "chain": anchors.check(),
            "tokens": tokens.check(),
            "audit": trail.check(),
            "background": background.check(),
            "chunk-limit": limits.check(),
            "memory": health.memory({"INFLIGHT_MAX_BYTES": budget, "READS_MAX_BYTES": reads}),
        }

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        trail.audit.note(Action.SERVICE_START, Outcome.ALLOWED, None)
        start = background.start
        tasks = [
            start("loop-lag", watch_loop_lag),
            start("tokens", lambda: tokens.run(trail.audit)),
            start("database", readiness.establish, finishes=True),
            start("clock", lambda: clock.run(db, readiness)),
            start("seals", lambda: _resume("seals", ledger.resume_seals, readiness)),
            start("shredding", lambda: _resume("shredding", shredder.resume, readiness)),
            start("uptime", lambda: replicas.run_uptime(readiness)),
            start("seal-desk", lambda: replicas.run_desk(readiness)),
            start("retention", lambda: sweeper.run(readiness)),
            start("idle", lambda: idle_sealer.run(readiness), finishes=True),
            start("scrub", lambda: background_scrub.run(readiness), finishes=True),
            start("anchoring", lambda: anchors.run(readiness), finishes=True),
            start("audit-seal", lambda: trail.seal.run(readiness)),
            start("audit", lambda: trail.tell(readiness)),
            start("disk", lambda: disk.run(readiness)),
            start("backlog", lambda: backlog.run(readiness)),
        ]
        _log.info("service_started", version=__version__)
        try:
            yield
        finally:
            await end_all(tasks)
            await close(client)
            _log.info("service_stopped")

    endpoint = submit.SubmitEndpoint(
        intake,
        authenticator,
        readiness=readiness,
        disk=disk,
        budget=budget,
        limit_bytes=submit.body_limit(settings.chunk_max_bytes),
    )
    return make_app(
        title="Lucid session-storage",
        service=settings.service_name,
        authenticator=authenticator,
        audit=trail.audit,
        checks=checks,
        budget=budget,
        routers=[
            routes.router(ledger, shredder, Evidence(ledger, trail.chunks, trail.chunks, tiles), readiness, reads),
            key_routes.router(ledger, Rings(mongo_key_rings.MongoKeyRings(db)), readiness, reads),
            processor_routes.router(replicas.registry, sessions, replicas.uptime, terms, readiness, limits=limits),
            retention_routes.router(ledger, due, terms, readiness, reads),
            scrub_routes.router(scrubber, findings, readiness, reads),
            anchor_routes.router(batches, readiness, anchors.head_block, reads),
            audit_routes.router(trail.trail, trail.events, ledger, readiness, reads),
            site.router(site.Site(settings.processor_origin())),
        ],
        hot_routes=[submit.route(endpoint)],
        lifespan=lifespan,
        cors_origins=settings.origins(),
    )


def main() -> int:
    """Run until SIGTERM; the exit code."""
    try:
        killpoints.arm(Point)
        settings = load(StorageSettings)
        log.configure("DEBUG" if settings.debug else settings.log_level, settings.service_name)
        context = tls.server_context(settings, settings.tls_client_ca_file)
        asyncio.run(anchoring.check_configuration(settings))
        app = build(settings)
        stop_tracing = tracing.start(settings.service_name)
    except ConfigurationError as error:
        exit_with(error)
    except killpoints.KillPointError as error:
        exit_with(ConfigurationError(killpoints.AT, str(error)))
    try:
        return server.serve(app, settings, context)
    finally:
        stop_tracing()


if __name__ == "__main__":
    sys.exit(main())
