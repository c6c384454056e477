"""The chain in memory: what it promises in the fewest words, and what unit tests run on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sessions.core.anchor_contract import encode_anchor_call
from sessions.core.receipt import Anchor
from sessions.core.types import Hash
from sessions.storage.anchor import (
    ChainMisconfiguredError,
    ChainUnavailableError,
    HistoryLostError,
    SignedTransaction,
    UnderpricedError,
)
from sessions.storage.chain import Inclusion, Sighting

GWEI: Final = 10**9


@dataclass
class _Block:
    number: int
    fork: int
    transactions: list[SignedTransaction] = field(default_factory=list)

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(b"block %d %d" % (self.number, self.fork)).digest()


class MemoryChain:
    """Twin of `EvmChain`: one publisher, blocks on demand, reorganisations, and nodes that can be away.

    Attributes:
        away: While true, no node answers.
        forgetful: While true, no node knows transactions any more; the contract's state is there.
        cap_wei: The cap on fees, in wei per gas.
        base_fee_wei: What the next block asks for, in wei per gas; a transaction that offers less waits.
        least_fee_wei: What a node wants at least, in wei per gas; it refuses a transaction that offers less.
        confirmations: A block this deep is confirmed; 1 is the head.
        sent: All that was broadcast, in order.
    """

    def __init__(self, confirmations: int = 2, cap_wei: int = 200 * GWEI, publisher: bytes = b"\x01" * 20) -> None:
        self.away = self.forgetful = False
        self.wrong_setting: str | None = None
        self.cap_wei, self.base_fee_wei, self.confirmations = cap_wei, GWEI, confirmations
        self.least_fee_wei = 0
        self.publisher, self.contract, self.chain_id = publisher, b"\xcc" * 20, 31337
        self.sent: list[SignedTransaction] = []
        self._mempool: dict[int, SignedTransaction] = {}
        self._blocks = [_Block(0, 0)]
        self._forks = 0

    def mine(self, blocks: int = 1) -> None:
        """Add blocks; the first takes what waits, in order of nonces."""
        for _ in range(blocks):
            block = _Block(len(self._blocks), self._forks)
            self._blocks.append(block)
            while (waiting := self._mempool.get(self._nonce())) and waiting.max_fee_wei >= self.base_fee_wei:
                block.transactions.append(waiting)

    def reorganise(self, depth: int) -> None:
        """Replace the last `depth` blocks by empty ones; what was in them is forgotten."""
        self._forks += 1
        height = len(self._blocks)
        del self._blocks[height - depth :]
        self._mempool.clear()
        self.mine(depth)

    def use_nonce(self) -> None:
        """Another program uses the publisher's key: the next nonce goes to a foreign transaction."""
        self._mempool.clear()
        foreign = self._signed(Hash(bytes(32)), self._nonce(), self.base_fee_wei)
        self._mempool[foreign.nonce] = foreign
        self.mine()

    def anchored(self) -> list[Hash]:
        """Roots on the chain, in order, each once."""
        return list(dict.fromkeys(Hash(item.raw[-40:-8]) for block in self._blocks for item in block.transactions))

    def _nonce(self, height: int | None = None) -> int:
        blocks = self._blocks if height is None else self._blocks[: height + 1]
        return sum(len(block.transactions) for block in blocks)

    def _signed(self, root: Hash, nonce: int, fee: int) -> SignedTransaction:
        raw = nonce.to_bytes(8, "big") + encode_anchor_call(root) + fee.to_bytes(8, "big")
        return SignedTransaction(
            hash=hashlib.sha256(raw).digest(),
            raw=raw,
            nonce=nonce,
            chain_id=self.chain_id,
            contract=self.contract,
            publisher=self.publisher,
            max_fee_wei=fee,
            priority_fee_wei=1,
        )

    async def check(self) -> None:
        """See that the chain is there, and as it should be."""
        if self.away:
            raise ChainUnavailableError("memory: away")
        if self.wrong_setting:
            raise ChainMisconfiguredError(self.wrong_setting, "wrong on purpose")

    async def sign(
        self, root: Hash, replaces: SignedTransaction | None = None, refused: bool = False
    ) -> SignedTransaction | None:
        """Sign a transaction that anchors `root`; nothing is sent."""
        await self.check()
        if self.base_fee_wei > self.cap_wei:
            if replaces:
                return None
            raise ChainUnavailableError("the chain asks for more than the cap on fees")
        fee = min(2 * self.base_fee_wei, self.cap_wei)
        if replaces is None:
            return self._signed(root, self._nonce(), fee)
        if replaces.publisher != self.publisher:
            return None
        if refused:
            fee = min(max(fee, 2 * replaces.max_fee_wei), self.cap_wei)
            return self._signed(root, replaces.nonce, fee) if fee > replaces.max_fee_wei else None
        fee = max(fee, replaces.max_fee_wei * 9 // 8 + 1)
        return self._signed(root, replaces.nonce, fee) if fee <= self.cap_wei else None

    async def broadcast(self, transaction: SignedTransaction) -> None:
        """Send it."""
        await self.check()
        if transaction.max_fee_wei < self.least_fee_wei:
            raise UnderpricedError("memory: transaction underpriced")
        self.sent.append(transaction)
        if transaction.nonce >= self._nonce():
            self._mempool[transaction.nonce] = transaction

    async def find(
        self, root: Hash, transactions: Sequence[SignedTransaction], stored: Anchor | None = None
    ) -> Sighting:
        """Look for a batch's transactions."""
        await self.check()
        head = len(self._blocks) - 1
        confirmed = head - self.confirmations + 1
        ours = [item for item in transactions if item.chain_id == self.chain_id]
        inclusion = next((found for item in ours if (found := self._inclusion(item))), None)
        unused = [item for item in reversed(ours) if item.nonce >= self._nonce()]
        live = min(unused, key=lambda item: item.nonce, default=None)
        settled = self._nonce(max(confirmed, 0))
        if inclusion is None:
            if ours and live is None and root in self.anchored():
                raise HistoryLostError("memory: the contract has a batch of which the node lost the transaction")
            if ours and stored is not None and stored.block_number is not None and not self._is_gone(stored):
                raise ChainUnavailableError("memory: behind, or lacks the receipt")
        gap = live is not None and settled < live.nonce > self._nonce()
        return Sighting(
            head=head,
            confirmed_height=confirmed,
            inclusion=inclusion,
            live=live,
            spent=inclusion is None and all(item.nonce < settled for item in ours),
            gap_at=_time(max(confirmed, 0)) if gap else None,
        )

    def _is_gone(self, stored: Anchor) -> bool:
        number = stored.block_number or 0
        if number >= len(self._blocks):
            return False
        block = self._blocks[number]
        held = any(item.hash == stored.transaction for item in block.transactions)
        return block.hash != stored.block_hash or not held

    def _inclusion(self, transaction: SignedTransaction) -> Inclusion | None:
        for block in self._blocks:
            if transaction in block.transactions and not self.forgetful:
                return Inclusion(
                    transaction=transaction,
                    block_number=block.number,
                    block_hash=block.hash,
                    block_timestamp=_time(block.number),
                    gas_used=46_000,
                )
        return None

    async def balance_wei(self) -> int:
        """What the publisher's account holds, in wei."""
        await self.check()
        return 10**18


def _time(number: int) -> int:
    return 1_700_000_000 + number
