"""The anchorer: makes batches of sealed sessions, and brings each onto the chain, one step after the other.

Each step is stored before the next is taken, so the process may die between any two of them; what is done twice, for
that or because two replicas both think that they lead, changes nothing the second time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from sessions.core.merkle import root as tree_root
from sessions.core.receipt import AnchorState
from sessions.runtime.killpoints import reach
from sessions.runtime.tasks import skipped
from sessions.runtime.times import now as present
from sessions.storage.anchor import (
    AnchoringError,
    BatchLog,
    BatchRecord,
    ChainMisconfiguredError,
    ChainUnavailableError,
    HistoryLostError,
    Lease,
    SessionPool,
    StaleLeaderError,
)
from sessions.storage.anchor_pace import BATCHES_PER_INTERVAL, Pace
from sessions.storage.anchor_steps import REPLACE_AFTER_SECONDS, Steps
from sessions.storage.anchorer_status import AnchorerStatus
from sessions.storage.chain import Chain
from sessions.storage.killpoints import Point

BATCH_MAX_SESSIONS: Final = 10_000
IN_FLIGHT_POLL_SECONDS: Final = 4.0
"""How often to look for a transaction that is in no block yet."""
RETRY_SECONDS: Final = 15.0
"""How soon to try again after a failure."""
_NOT_INCLUDED: Final = (AnchorState.PENDING, AnchorState.SUBMITTED)
_log = structlog.get_logger()


class Batches(SessionPool, BatchLog, Protocol):
    """What the anchorer writes to."""


class Anchorer:
    """Run one in each replica; the lease sees to it that one acts."""

    def __init__(
        self,
        *,
        batches: Batches,
        lease: Lease,
        chain: Chain,
        interval_seconds: float = 60,
        batches_per_interval: int = BATCHES_PER_INTERVAL,
        batch_max_sessions: int = BATCH_MAX_SESSIONS,
        replace_after_seconds: float = REPLACE_AFTER_SECONDS,
        now: Callable[[], datetime] = present,
    ) -> None:
        """Nothing happens before `run` or `tick`.

        `interval_seconds` is the least time between two batches. While full batches wait, `batches_per_interval` may be
        made in it.
        """
        self._batches, self._lease, self._chain, self._now = batches, lease, chain, now
        self._interval_seconds, self._batch_max_sessions = interval_seconds, batch_max_sessions
        self._pace = Pace(batches, interval_seconds, batches_per_interval, now)
        self._in_flight = False
        self._more = False
        self._batch_due_at = 0.0
        self.status = AnchorerStatus()
        self._steps = Steps(batches, chain, self.status, timedelta(seconds=replace_after_seconds), now)

    async def run(self) -> None:
        """Work until cancelled. Nothing that goes wrong ends it; the lease is let go at the end."""
        try:
            while True:
                delay_seconds = await self._round()
                await asyncio.sleep(delay_seconds)
        finally:
            with suppress(Exception):  # it runs out by itself
                await self._lease.release()

    async def _round(self) -> float:
        """One tick; how long to wait for the next, in seconds."""
        loop = asyncio.get_running_loop()
        due = self._more or loop.time() >= self._batch_due_at
        wait_seconds = 0.0
        try:
            if due:
                wait_seconds = await self._pace.wait_seconds(backlog=self._more)
                self._batch_due_at = loop.time() + (wait_seconds or self._interval_seconds)
                await self._probe()
            await self.tick(make_batch=due and not wait_seconds)
        except StaleLeaderError as error:
            self.status.superseded(error)
            self._batch_due_at = 0.0  # the batch is still to be made
            _log.info("anchoring_leader_changed", reason=str(error), rounds=self.status.superseded_rounds)
            with suppress(Exception):  # it runs out by itself
                await self._lease.release()  # a database that was set back counts up from a number below those in use
        except ChainUnavailableError as error:
            self.status.failed(error, chain_ok=False)
            _log.warning("chain_unavailable", reason=str(error))
        except ChainMisconfiguredError as error:
            self.status.failed(error, chain_ok=False)
            _log.error("chain_misconfigured", setting=error.setting, reason=str(error))
        except Exception as error:  # noqa: BLE001 - logged whole, and anchoring goes on
            self.status.failed(error, chain_ok=self.status.chain_ok)
            _log.exception("anchoring_failed", error=type(error).__name__)
        else:
            self.status.succeeded()
            pause = IN_FLIGHT_POLL_SECONDS if self._in_flight else self._interval_seconds
            if self._more and not self._in_flight and not wait_seconds:
                return 0.0
            return min(pause, self._interval_seconds, wait_seconds or pause)
        return min(RETRY_SECONDS, self._interval_seconds)

    async def _probe(self) -> None:
        """See whether the chain is there, also when there is nothing to anchor, so that health can tell."""
        try:
            self.status.balance_wei = await self._chain.balance_wei()
        except AnchoringError:
            self.status.chain_ok = False
        else:
            self.status.chain_ok = True

    async def tick(self, *, make_batch: bool = True) -> None:
        """Do all that can be done now.

        Raises:
            ChainUnavailableError: what needs the chain waits; new sessions are batched all the same.
            ChainMisconfiguredError: as above, until somebody changes the setting.
            StaleLeaderError: another replica leads.
        """
        token = await self._lease.acquire()
        self.status.leader = token is not None
        if token is None:
            self._in_flight = self._more = False
            return
        reach(Point.ANCHOR_LEASE_TAKEN)
        last = await self._batches.last()
        if last is not None and not last.placed:
            await self._batches.place(last.sequence, token)
        lost = await _failure(self._look_back(token)) if make_batch else None
        failure = await _failure(self._advance(token))
        made = make_batch and await self._make_batch(token)
        if made and failure is None:
            await self._advance(token)
        if (error := failure or lost) is not None:
            raise error

    async def _make_batch(self, token: int) -> bool:
        unsettled = await self._batches.unsettled()
        if any(record.anchor.state in _NOT_INCLUDED for record in unsettled):
            self._batch_due_at = 0.0  # as soon as that one is in a block
            return False
        # In this order: the sessions of `last` are not unbatched, and if a later batch exists, `append` refuses.
        if (last := await self._batches.last()) is not None and not last.placed:
            raise StaleLeaderError(f"batch {last.sequence} is being placed by another leader")
        leaves = await self._batches.unbatched(self._batch_max_sessions)
        self._more = len(leaves) == self._batch_max_sessions
        if not leaves:
            return False
        hashes = [leaf.leaf_hash for leaf in leaves]
        record = BatchRecord(
            sequence=0 if last is None else last.sequence + 1,
            root=await asyncio.to_thread(tree_root, hashes),
            size=len(leaves),
            created_at=self._now(),
            session_ids=tuple(leaf.session_id for leaf in leaves),
        )
        await self._batches.append(record, hashes, token)
        reach(Point.BATCH_STORED)
        await self._batches.place(record.sequence, token)
        reach(Point.BATCH_PLACED)
        self.status.made(record.size)
        _log.info("batch_made", sequence=record.sequence, root=record.root.hex(), sessions=record.size)
        return True

    async def _advance(self, token: int) -> None:
        """Take each unsettled batch as far as it goes, oldest first.

        A batch that fails stops no other; the first failure is raised when all have had their turn. No nonce is chosen
        while an older batch is in no block: the next nonce that the chain takes may be that one's.
        """
        waiting: list[BatchRecord] = []
        failure: Exception | None = None
        try:
            for stored in await self._batches.unsettled():
                waiting.append(stored)
                record = stored
                try:
                    record = await self._step(stored, token, may_sign=len(waiting) == 1)
                    self.status.chain_ok = True
                except Exception as error:
                    if isinstance(error, AnchoringError) and not isinstance(error, HistoryLostError):
                        raise  # the chain fails all of them
                    skipped(sequence=stored.sequence)
                    failure = failure or error
                if record.anchor.state not in _NOT_INCLUDED:
                    waiting.pop()
        finally:
            self._in_flight = bool(waiting)
        if failure is not None:
            raise failure

    async def _look_back(self, token: int) -> None:
        """See that the chain has what it had confirmed: a node of one's own may be put back to an older state.

        A chain loses its newest blocks, so where one is as it was, those below it are, too.
        """
        below: BatchRecord | None = None
        while (record := await self._batches.highest_confirmed(self._chain.chain_id, below)) is not None:
            try:
                if await self._step(record, token, may_sign=False) == record:
                    return
            except HistoryLostError:
                return  # old transactions are forgotten; it is there
            below = record

    async def _step(self, record: BatchRecord, token: int, *, may_sign: bool) -> BatchRecord:
        return await self._steps.take(record, token, may_sign=may_sign)


async def _failure(work: Awaitable[None]) -> Exception | None:
    """Why a work was not done, or not for each batch."""
    try:
        await work
    except Exception as error:
        if isinstance(error, StaleLeaderError):
            raise
        return error
    return None
