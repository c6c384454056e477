"""Anchoring as the service runs it: off, or an anchorer on the chain of the settings."""

import socket
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from sessions.runtime.health import Check
from sessions.runtime.settings import ConfigurationError, read_secret
from sessions.runtime.times import Clock, now
from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError
from sessions.storage.anchor_metrics import METRICS
from sessions.storage.anchorer import Anchorer
from sessions.storage.mongo import Database, Readiness
from sessions.storage.mongo_batches import MongoBatches
from sessions.storage.mongo_lease import MongoLease
from sessions.storage.settings import StorageSettings

if TYPE_CHECKING:
    from sessions.storage.evm import EvmChain

_LEASE_SECONDS: Final = 30.0
_START_CHECK_TIMEOUT_SECONDS: Final = 5.0

_log = structlog.get_logger()


class Anchoring(Protocol):
    """What runs beside the service, and what it says of itself."""

    async def run(self, readiness: Readiness) -> None:
        """Anchor until cancelled."""

    def check(self) -> Check:
        """For `/health`: a chain that is away is degraded, never failed."""

    def head_block(self) -> int | None:
        """The chain's newest block when it was looked at last; None when it was not."""


class Off:
    """ANCHORING=off: sealed sessions stay pending, and are anchored should it be turned on."""

    async def run(self, readiness: Readiness) -> None:
        """Nothing to do."""

    def check(self) -> Check:
        """Off is what was asked for."""
        return Check("ok", "anchoring is off")

    def head_block(self) -> int | None:
        """Nobody looks."""
        return None


class On:
    """An anchorer, once the database is ready."""

    def __init__(self, anchorer: Anchorer, chain: "EvmChain") -> None:
        self._anchorer = anchorer
        self._chain = chain

    async def run(self, readiness: Readiness) -> None:
        """Anchor until cancelled."""
        try:
            await readiness.established.wait()
            await self._anchorer.run()
        finally:
            await self._chain.close()

    def check(self) -> Check:
        """Degraded while the chain does not answer, or the last round failed."""
        status = self._anchorer.status
        if status.last_error is not None:
            return Check("degraded", f"anchors are delayed: {status.last_error}")
        if status.chain_ok is False:
            return Check("degraded", "anchors are delayed: CHAIN_RPC_URLS do not answer")
        return Check("ok", "" if status.chain_ok else "not asked yet")

    def head_block(self) -> int | None:
        """What the anchorer saw, if this replica leads."""
        status = self._anchorer.status
        return status.head_block if status.leader else None


def build(settings: StorageSettings, db: Database, batches: MongoBatches, clock: Clock = now) -> Anchoring:
    """The anchoring that the settings ask for.

    Raises:
        ConfigurationError: a setting of the chain is missing or wrong.
    """
    if settings.anchoring == "off":
        METRICS.show(None)
        return Off()
    chain = _chain(settings)
    lease = MongoLease(db, "anchorer", f"{socket.gethostname()}-{token_hex(4)}", _LEASE_SECONDS)
    anchorer = Anchorer(
        batches=batches,
        lease=lease,
        chain=chain,
        interval_seconds=settings.anchor_interval_seconds,
        batches_per_interval=settings.anchor_batches_per_interval,
        batch_max_sessions=settings.anchor_batch_max_sessions,
        now=clock,
    )
    METRICS.show(anchorer.status, settings.anchor_interval_seconds)
    return On(anchorer, chain)


async def check_configuration(settings: StorageSettings) -> None:
    """See at start, if the chain answers, that it is the right one, with our contract on it.

    Raises:
        ConfigurationError: it is not, or a setting is missing.
    """
    if settings.anchoring == "off":
        return
    chain = _chain(settings, _START_CHECK_TIMEOUT_SECONDS)
    try:
        await chain.check()
    except ChainMisconfiguredError as error:
        raise ConfigurationError(error.setting, error.problem) from None
    except ChainUnavailableError as error:
        _log.warning("chain_unavailable", setting="CHAIN_RPC_URLS", reason=str(error))
    finally:
        await chain.close()


def _chain(settings: StorageSettings, timeout_seconds: float = 10.0) -> "EvmChain":
    # Here, because it is half of a start and of its memory, which a service that anchors nothing goes without.
    from sessions.storage.evm import EvmChain

    settings.require_chain()
    assert settings.chain_id is not None
    assert settings.chain_key_file is not None
    try:
        return EvmChain(
            rpc_urls=[url.strip() for url in settings.chain_rpc_urls.split(",") if url.strip()],
            chain_id=settings.chain_id,
            contract=bytes.fromhex(settings.chain_contract[2:]),
            key=read_secret("CHAIN_KEY_FILE", settings.chain_key_file),
            confirmations=settings.anchor_confirmations,
            max_fee_gwei=settings.chain_max_fee_gwei,
            timeout_seconds=timeout_seconds,
        )
    except ChainMisconfiguredError as error:
        raise ConfigurationError(error.setting, error.problem) from None
