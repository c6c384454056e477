"""What carries a processor through an outage of session-storage, put together: spool, reports, orders, and draining."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sessions.processor.acknowledged import Acknowledged
from sessions.processor.chunk_limit import ChunkLimit
from sessions.processor.delivery import Delivery
from sessions.processor.drainer import Drainer
from sessions.processor.key_rings import KeyRings
from sessions.processor.pipeline import Submitter
from sessions.processor.promises import Promises
from sessions.processor.quarantine import Quarantine
from sessions.processor.recording import Recording
from sessions.processor.reporting import Identity, Reporter
from sessions.processor.seal_orders import SealOrders
from sessions.processor.settings import ProcessorSettings
from sessions.processor.spool import Spool
from sessions.processor.spool_room import SpoolRoom
from sessions.processor.spool_segments import SEGMENT_BYTES, Segments, SpoolFolderError
from sessions.processor.spooling import Spooling
from sessions.processor.storage_client import StorageClient
from sessions.processor.storage_watch import StorageWatch
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import MIB, ConfigurationError

_LEAVE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outage:
    """The parts that run beside requests."""

    spooling: Spooling
    reporter: Reporter
    orders: SealOrders
    drainer: Drainer

    def works(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return what is to run until the service ends, by name."""
        return {
            "storage-watch": self.spooling.watch.run,
            "spool-disk": self.spooling.spool.watch,
            "drainer": self.drainer.run,
            "reports": self.reporter.run,
        }

    async def leave(self) -> None:
        """Tell session-storage that this processor ends, if it holds nothing."""
        with suppress(DomainError, OSError, TimeoutError):
            await asyncio.wait_for(self.reporter.leave(), _LEAVE_SECONDS)


@dataclass(frozen=True, slots=True)
class OpenedSpool:
    """The spool, and who it is to session-storage."""

    spooling: Spooling
    identity: Identity

    def outage(
        self,
        settings: ProcessorSettings,
        storage: StorageClient,
        submitter: Submitter,
        *,
        recording: Recording,
        rings: KeyRings,
        acknowledged: Acknowledged,
    ) -> Outage:
        """Put together what runs beside requests."""
        reporter = Reporter(self.identity, self.spooling, storage, acknowledged, (rings.set_back,))
        orders = SealOrders(storage, self.spooling, reporter)
        delivery = Delivery(self.spooling, storage, submitter, recording, rings=rings, orders=orders)
        drainer = Drainer(self.spooling, delivery, settings.spool_delivery_attempts)
        reporter.urge = drainer.urge
        return Outage(self.spooling, reporter, orders, drainer)


def open_spool(settings: ProcessorSettings, storage: StorageClient) -> OpenedSpool | None:
    """Open the spool; None with SPOOL=off.

    Raises:
        ConfigurationError: its folder cannot be used.
    """
    if settings.spool == "off":
        return None
    segment_bytes = min(SEGMENT_BYTES, max(MIB, settings.spool_max_bytes // 8))
    room = SpoolRoom(settings.spool_max_bytes, settings.spool_free_min_bytes)
    quarantine = Quarantine(settings.spool_dir / "quarantine", settings.spool_quarantine_max_bytes)
    spool = Spool(Segments(settings.spool_dir, segment_bytes, quarantine), room)
    promises = Promises(settings.spool_dir / "promises.json")
    try:
        spool.open()
        promises.load()
        identity = Identity(settings.spool_dir, socket.gethostname())
    except SpoolFolderError as error:
        raise ConfigurationError("SPOOL_DIR", f"{error}; or set SPOOL=off, and chunks are refused instead") from None
    except (OSError, ValueError, KeyError) as error:
        detail = f"a file in {settings.spool_dir} cannot be read or written ({type(error).__name__}: {error})"
        raise ConfigurationError("SPOOL_DIR", detail) from None
    watch = StorageWatch(storage.reachable)
    spooling = Spooling(spool, watch, promises, introduced=identity.introduced)
    spooling.limit = ChunkLimit(settings.chunk_max_bytes)
    return OpenedSpool(spooling, identity)
