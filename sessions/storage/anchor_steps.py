"""The steps that bring one batch onto the chain."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from sessions.core.receipt import Anchor, AnchorState
from sessions.runtime.killpoints import reach
from sessions.storage.anchor import BatchLog, BatchRecord, ChainMisconfiguredError, SignedTransaction, UnderpricedError
from sessions.storage.anchorer_status import AnchorerStatus
from sessions.storage.chain import Chain, Inclusion, Sighting
from sessions.storage.killpoints import Point

REPLACE_AFTER_SECONDS: Final = 300.0
"""After this long without a block a transaction is replaced by one with a higher fee."""
NONCES_MAX: Final = 16
"""Nonces that a batch may lose to other transactions before it is signed again only once in `NONCES_PAUSE`."""
NONCES_PAUSE: Final = timedelta(days=1)
_IN_A_BLOCK: Final = (AnchorState.INCLUDED, AnchorState.CONFIRMED)
_log = structlog.get_logger()


class Steps:
    """Takes a batch one step further; each step is stored before the next."""

    def __init__(
        self,
        batches: BatchLog,
        chain: Chain,
        status: AnchorerStatus,
        replace_after: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._batches, self._chain, self._status = batches, chain, status
        self._replace_after, self._now = replace_after, now

    async def take(self, record: BatchRecord, token: int, *, may_sign: bool) -> BatchRecord:
        """Take a batch one step further, if the chain lets it, and return it as it is stored then.

        Args:
            record: The batch, as it is stored.
            token: The leader's fencing number.
            may_sign: Whether a nonce may be chosen for it.

        Raises:
            ChainUnavailableError: no node answers, or all that answer lag behind what is stored of the batch.
            ChainMisconfiguredError: the chain is not the one of the settings.
            StaleLeaderError: another replica leads.
        """
        if record.anchor.state is AnchorState.PENDING:
            return await self._sign(record, token) if may_sign else record
        sighting = await self._chain.find(record.root, record.transactions, record.anchor)
        self._status.head_block = sighting.head
        if (found := sighting.inclusion) is not None:
            # What was deep enough once is so, whatever a node that starts, or a changed setting, says of the depth.
            was = record.anchor.state is AnchorState.CONFIRMED and record.anchor.block_hash == found.block_hash
            deep = found.block_number <= sighting.confirmed_height
            return record if was and not deep else await self._settle(record, found, token, confirmed=deep)
        if record.anchor.state in _IN_A_BLOCK:
            record = await self._reorganised(record, token)
        if sighting.live is None or self._is_stranded(record, sighting):
            if not may_sign or not (sighting.spent or sighting.live):
                return record
            self._require_patience(record)
            return await self._sign(record, token)
        waited = record.submitted_at is not None and self._now() - record.submitted_at > self._replace_after
        if waited and sighting.gap_at is None:  # a higher fee closes no gap
            return await self._sign(record, token, replaces=sighting.live)
        return await self._send(record, sighting.live, token)

    def _require_patience(self, record: BatchRecord) -> None:
        """See that a batch is not signed for nonce after nonce without end: each may cost a fee.

        Raises:
            ChainMisconfiguredError: it lost `NONCES_MAX` nonces, and the last of them less than a day ago.
        """
        nonces = {item.nonce for item in record.transactions if item.chain_id == self._chain.chain_id}
        waited = record.submitted_at is None or abs(self._now() - record.submitted_at) >= NONCES_PAUSE
        if len(nonces) >= NONCES_MAX and not waited:
            raise ChainMisconfiguredError(
                "CHAIN_KEY_FILE",
                f"batch {record.sequence} lost {len(nonces)} nonces to other transactions: give no other program this "
                "key, and ask another node; the next attempt is a day after the last",
            )

    def _is_stranded(self, record: BatchRecord, sighting: Sighting) -> bool:
        """Return whether the chain will not come to the transaction's nonce: the number was a node's mistake.

        Blocks that were made well after the signing, and are confirmed by now, have not used the nonces below it.
        """
        if sighting.gap_at is None or record.submitted_at is None:
            return False
        return sighting.gap_at > (record.submitted_at + self._replace_after).timestamp()

    async def _sign(self, record: BatchRecord, token: int, replaces: SignedTransaction | None = None) -> BatchRecord:
        """Sign, store, broadcast: in this order, so that no transaction is out of which nobody knows."""
        signed = await self._chain.sign(record.root, replaces)
        if signed is None:
            assert replaces is not None
            return await self._send(record, replaces, token)
        record = await self._send(await self._store(record, signed, token), signed, token)
        reach(Point.TRANSACTION_BROADCAST)
        return record

    async def _send(self, record: BatchRecord, signed: SignedTransaction, token: int) -> BatchRecord:
        """Broadcast a stored transaction, and offer twice as much each time that it is refused as too little.

        What is refused so was never in a pool, so there is nothing to wait for; the cap on fees ends it.
        """
        while True:
            try:
                await self._chain.broadcast(signed)
            except UnderpricedError:
                higher = await self._chain.sign(record.root, signed, True)
                if higher is None:
                    raise
                record, signed = await self._store(record, higher, token), higher
            else:
                return record

    async def _store(self, record: BatchRecord, signed: SignedTransaction, token: int) -> BatchRecord:
        reach(Point.TRANSACTION_SIGNED)
        anchor = Anchor(
            state=AnchorState.SUBMITTED,
            chain_id=signed.chain_id,
            contract=signed.contract,
            publisher=signed.publisher,
            transaction=signed.hash,
        )
        transactions = (*record.transactions, signed)
        changed = replace(record, anchor=anchor, transactions=transactions, submitted_at=self._now(), gas_used=None)
        await self._batches.update(changed, record.anchor.state, token)
        reach(Point.TRANSACTION_STORED)
        self._status.transactions_signed += 1
        _log.info("batch_submitted", sequence=record.sequence, transaction=signed.hash.hex(), nonce=signed.nonce)
        return changed

    async def _settle(self, record: BatchRecord, found: Inclusion, token: int, *, confirmed: bool) -> BatchRecord:
        anchor = found.anchor(confirmed=confirmed)
        if anchor == record.anchor:
            return record
        changed = replace(record, anchor=anchor, gas_used=found.gas_used)
        reach(Point.ANCHOR_FOUND)
        await self._batches.update(changed, record.anchor.state, token)
        reach(Point.ANCHOR_CONFIRMED if confirmed else Point.ANCHOR_INCLUDED)
        self._status.batches_included += record.anchor.state is AnchorState.SUBMITTED
        self._status.batches_confirmed += confirmed
        event = "batch_confirmed" if confirmed else "batch_included"
        _log.info(event, sequence=record.sequence, block_number=found.block_number, gas_used=found.gas_used)
        return changed

    async def _reorganised(self, record: BatchRecord, token: int) -> BatchRecord:
        """The block is gone, and the transaction with it: back to waiting for one."""
        anchor = replace(
            record.anchor, state=AnchorState.SUBMITTED, block_number=None, block_hash=None, block_timestamp=None
        )
        changed = replace(record, anchor=anchor, submitted_at=self._now(), gas_used=None)
        await self._batches.update(changed, record.anchor.state, token)
        reach(Point.ANCHOR_TAKEN_BACK)
        self._status.reorganisations += 1
        _log.warning("batch_reorganised_away", sequence=record.sequence, transaction=(anchor.transaction or b"").hex())
        return changed
