"""chunk-processor: the one place that names its parts.

python -m sessions.processor.main
"""

import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from sessions import __version__
from sessions.core.audit import Action, Outcome
from sessions.processor import chunk_route, key_routes, lucid_routes, routes, spool_routes
from sessions.processor.acknowledged import Acknowledged
from sessions.processor.chunk_limit import ChunkLimit
from sessions.processor.content import Content
from sessions.processor.key_files import load_keks, load_recipient
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import KeyWrapper
from sessions.processor.killpoints import Point
from sessions.processor.outage import open_spool
from sessions.processor.pipeline import Submitter
from sessions.processor.quarantine_reader import QuarantineReader
from sessions.processor.recording import Recording
from sessions.processor.recovery import RecoverableWrapper
from sessions.processor.rotation import Rotation
from sessions.processor.session_desk import SessionDesk
from sessions.processor.settings import ProcessorSettings
from sessions.processor.spool_health import spool_checks
from sessions.processor.storage_client import StorageClient
from sessions.runtime import health, killpoints, log, server, tls, tracing
from sessions.runtime.app import make_app
from sessions.runtime.audit import Audit
from sessions.runtime.budget import ByteBudget
from sessions.runtime.health import Check
from sessions.runtime.metrics import watch_loop_lag, watched
from sessions.runtime.settings import ConfigurationError, exit_with, load, read_secret
from sessions.runtime.tasks import Background, end_all
from sessions.runtime.tokens_watch import TokensWatch

_log = structlog.get_logger()


def build(settings: ProcessorSettings) -> FastAPI:
    """Wire the service.

    Raises:
        ConfigurationError: names the setting that cannot work.
    """
    tokens = TokensWatch(settings.tokens_file, settings.limits())
    authenticator = tokens.authenticator
    keks = load_keks(settings.kek_file)
    recipient = load_recipient(settings.recovery_public_key_file)
    wrapper: KeyWrapper = keks if recipient is None else RecoverableWrapper(keks, recipient)
    recipient_id = recipient.recipient_id if recipient else None
    storage = _storage(settings)
    audit = Audit(settings.service_name, storage)
    executor = ThreadPoolExecutor(settings.seal_threads, "seal")
    spool = open_spool(settings, storage)
    spooling = spool.spooling if spool else None
    limit = spooling.limit if spooling else ChunkLimit(settings.chunk_max_bytes)
    acknowledged = Acknowledged()
    rings = KeyRings(wrapper, storage, settings.dek_cache_max_sessions, settings.dek_cache_seconds, spooling=spooling)
    submitter = Submitter(storage, spooling.watch if spooling else None)
    recording = Recording(
        rings, submitter, storage, executor, settings.zstd_level, spooling=spooling, acknowledged=acknowledged
    )
    outage = None
    if spool is not None:
        outage = spool.outage(settings, storage, submitter, recording=recording, rings=rings, acknowledged=acknowledged)
    desk = SessionDesk(storage, spooling, outage.drainer if outage else None, outage.orders if outage else None)
    budget = watched(ByteBudget(settings.inflight_max_bytes, owner_max_bytes=settings.inflight_max_bytes // 2))
    # Apart from the recorders' budget: whoever replays slowly must not keep them waiting.
    replays = ByteBudget(settings.replay_max_bytes)
    lucid = lucid_routes.LucidRecorder(recording, budget, limit, settings.batch_body_max_bytes)
    background = Background()

    async def checks() -> Mapping[str, Check]:
        parts = {
            "tokens": tokens.check(),
            "audit": Check("degraded", audit.problem) if audit.problem else Check("ok"),
            "background": background.check(),
            "chunk-limit": limit.check(),
            "memory": health.memory({"INFLIGHT_MAX_BYTES": budget, "REPLAY_MAX_BYTES": replays}),
        }
        if spooling is not None:
            return {**await spool_checks(spooling, storage), **parts}
        problem = await storage.reachable()
        return {"storage": Check("failed", problem) if problem else Check("ok"), **parts}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        audit.note(Action.SERVICE_START, Outcome.ALLOWED, None)
        start = background.start
        tasks = [
            start("loop-lag", watch_loop_lag),
            start("key-cache", rings.keep_short),
            start("tokens", lambda: tokens.run(audit)),
            start("audit", audit.run),
        ]
        if outage is not None:
            tasks += [start(name, work) for name, work in outage.works().items()]
        _log.info("service_started", version=__version__, active_kek=keks.active_id, recovery_recipient=recipient_id)
        async with storage:
            try:
                yield
            finally:
                await end_all(tasks)
                if outage is not None:
                    await outage.leave()
                executor.shutdown()
                if spooling is not None:
                    await spooling.spool.close()
        _log.info("service_stopped")

    chunks = chunk_route.ChunkEndpoint(recording, authenticator, budget, limit)
    reader = QuarantineReader(rings, recording, replays, settings.chunk_max_bytes)
    return make_app(
        title="Lucid chunk-processor",
        service=settings.service_name,
        authenticator=authenticator,
        audit=audit,
        checks=checks,
        budget=budget,
        routers=[
            lucid_routes.router(lucid, storage, desk),
            routes.router(storage, rings, Content(storage, recording, replays), desk, settings.chunk_max_bytes),
            key_routes.router(Rotation(wrapper, keks.kek_ids, recipient_id, storage)),
            spool_routes.router(spooling, reader, acknowledged),
        ],
        hot_routes=[chunk_route.route(chunks)],
        lifespan=lifespan,
        cors_origins=settings.origins(),
    )


def _storage(settings: ProcessorSettings) -> StorageClient:
    token = read_secret("STORAGE_TOKEN_FILE", settings.storage_token_file)
    return StorageClient(str(settings.storage_url), token, settings.storage_timeout_seconds, settings.storage_tls())


def main() -> int:
    """Run until SIGTERM; the exit code."""
    try:
        killpoints.arm(Point)
        settings = load(ProcessorSettings)
        log.configure("DEBUG" if settings.debug else settings.log_level, settings.service_name)
        context = tls.server_context(settings)
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
