"""The chain, really: an EVM chain behind a list of RPC nodes, with LucidAnchors on it and one publisher's key."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from sessions.core.anchor_contract import encode_anchor_call, is_genuine
from sessions.core.receipt import Anchor
from sessions.core.types import Hash
from sessions.storage.anchor import (
    ChainMisconfiguredError,
    ChainUnavailableError,
    SignedTransaction,
    UnderpricedError,
)
from sessions.storage.chain import Sighting
from sessions.storage.evm_look import Look
from sessions.storage.evm_reads import Confirmations, confirmed_height, hexed, used_nonces
from sessions.storage.rpc import METHOD_NOT_FOUND, Node, RpcError
from sessions.storage.rpc_nodes import Nodes

GAS_LIMIT: Final = 60_000
"""Gas that a transaction may use. `anchor` takes below 50,000, whatever the batch holds."""
RPC_TIMEOUT_SECONDS: Final = 10.0
GWEI: Final = 10**9
DEFAULT_PRIORITY_FEE_WEI: Final = GWEI
"""What to offer the block's maker where the node has no advice, in wei per gas."""

_UNDERPRICED: Final = (
    "underpriced",  # geth, Erigon, Reth, Bor, anvil
    "fee too low",
    "feetoolow",  # Nethermind
    "gas price too low",
    "less than block base fee",
    "below configured minimum",  # Besu
    "below minimum",  # BSC
)
"""Words, in lower case, by which clients refuse a transaction because it offers too little."""
# Some clients say so in these words, also of a nonce that only one of several backends knows to be used.
_ACCEPTED_BEFORE: Final = ("already known", "known transaction", "already imported", "already in", "nonce too low")


@dataclass(frozen=True, slots=True)
class _Fees:
    base: int
    priority: int


class EvmChain:
    """Implements `sessions.storage.anchor.Chain`."""

    def __init__(
        self,
        *,
        rpc_urls: Sequence[str],
        chain_id: int,
        contract: bytes,
        key: str,
        confirmations: Confirmations = "finalized",
        max_fee_gwei: float = 200,
        timeout_seconds: float = RPC_TIMEOUT_SECONDS,
    ) -> None:
        """Nothing is sent yet.

        Args:
            rpc_urls: The nodes, tried in turn; the one that answered last is asked first.
            chain_id: EIP-155 number that every node must have.
            contract: Address of LucidAnchors, 20 bytes.
            key: Private key of the publisher, 32 bytes in hex.
            confirmations: How many blocks, its own included, make an anchor confirmed; or the chain's own finality.
            max_fee_gwei: The most that a transaction offers, in gwei per gas.
            timeout_seconds: For one call of one node.

        Raises:
            ChainMisconfiguredError: a URL or the key is none.
        """
        try:
            self._account: LocalAccount = Account.from_key(key.strip())
        except Exception:  # noqa: BLE001 - the library raises many kinds, and some of them quote the key
            raise ChainMisconfiguredError("CHAIN_KEY_FILE", "does not hold a private key of 32 bytes in hex") from None
        self._nodes = Nodes(rpc_urls, timeout_seconds, self._verify)
        self.chain_id, self._contract, self._confirmations = chain_id, contract, confirmations
        self._cap_wei = int(max_fee_gwei * GWEI)
        self.publisher = bytes.fromhex(self._account.address[2:])

    def __repr__(self) -> str:
        contract, publisher = hexed(self._contract), hexed(self.publisher)
        return f"EvmChain(chain_id={self.chain_id}, contract={contract}, publisher={publisher})"

    async def close(self) -> None:
        """Close all connections."""
        await self._nodes.close()

    async def check(self) -> None:
        """See that every node that answers is of the right chain, with the right contract.

        Raises:
            ChainMisconfiguredError: one is not.
            ChainUnavailableError: none answers.
        """
        await self._nodes.check()

    async def _verify(self, node: Node) -> None:
        """Before a node's first use: a node of another chain must neither get our transactions nor answer for them."""
        chain_id = await node.number("eth_chainId")
        if chain_id != self.chain_id:
            raise ChainMisconfiguredError("CHAIN_ID", f"is {self.chain_id}, but {node.name} is on chain {chain_id}")
        if not is_genuine(await node.data("eth_getCode", hexed(self._contract), "latest")):
            raise ChainMisconfiguredError(
                "CHAIN_CONTRACT",
                f"there is no LucidAnchors contract at {hexed(self._contract)} on chain {chain_id}, says {node.name}",
            )
        await confirmed_height(node, 0, self._confirmations)

    async def sign(
        self, root: Hash, replaces: SignedTransaction | None = None, refused: bool = False
    ) -> SignedTransaction | None:
        """Sign a transaction that anchors `root`; nothing is sent.

        The nonce is the next that the chain will take, not the next that a node has seen: so a transaction of ours
        never waits behind one that somebody dropped.
        """
        if replaces is not None and replaces.publisher != self.publisher:
            return None
        data = encode_anchor_call(root)

        async def prepare(node: Node) -> tuple[int, _Fees]:
            nonce = replaces.nonce if replaces else await used_nonces(node, self.publisher)
            await self._require_gas(node, data)
            return nonce, await self._fees(node)

        nonce, fees = await self._nodes.ask(prepare)
        if replaces is None and fees.base > self._cap_wei:
            raise ChainUnavailableError(f"the chain asks for {fees.base / GWEI:.1f} gwei, more than CHAIN_MAX_FEE_GWEI")
        offer = self._raised(replaces, fees, refused) if replaces else self._offer(fees, fees.priority)
        if offer is None:
            return None
        fee, priority = offer
        return await asyncio.to_thread(self._signed, data, nonce, fee, priority)

    def _offer(self, fees: _Fees, priority: int, least: int = 0) -> tuple[int, int]:
        """Return the fee and the tip to offer, in wei per gas, within the cap."""
        fee = min(max(2 * fees.base + priority, least), self._cap_wei)
        return fee, min(priority, fee)

    def _raised(self, old: SignedTransaction, fees: _Fees, refused: bool) -> tuple[int, int] | None:
        """Return what to offer in place of a transaction that stays in no block; None when the cap forbids it."""
        if refused:  # it was in no pool, so any higher offer will do
            tip = max(fees.priority, 2 * old.priority_fee_wei, DEFAULT_PRIORITY_FEE_WEI)
            fee, priority = self._offer(fees, tip, 2 * old.max_fee_wei)
            higher = fee > old.max_fee_wei or priority > old.priority_fee_wei
            return (fee, priority) if higher and fees.base <= self._cap_wei else None
        # Nodes want a tenth more of both.
        priority = max(fees.priority, old.priority_fee_wei * 9 // 8 + 1)
        fee = max(min(2 * fees.base + fees.priority, self._cap_wei), old.max_fee_wei * 9 // 8 + 1)
        return None if max(fee, fees.base) > self._cap_wei else (fee, min(priority, fee))

    def _signed(self, data: bytes, nonce: int, max_fee_wei: int, priority_fee_wei: int) -> SignedTransaction:
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self.chain_id,
                "to": to_checksum_address(self._contract),
                "value": 0,
                "data": data,
                "gas": GAS_LIMIT,
                "nonce": nonce,
                "maxFeePerGas": max_fee_wei,
                "maxPriorityFeePerGas": priority_fee_wei,
            }
        )
        return SignedTransaction(
            hash=bytes(signed.hash),
            raw=bytes(signed.raw_transaction),
            nonce=nonce,
            chain_id=self.chain_id,
            contract=self._contract,
            publisher=self.publisher,
            max_fee_wei=max_fee_wei,
            priority_fee_wei=priority_fee_wei,
        )

    async def _require_gas(self, node: Node, data: bytes) -> None:
        """Rather no transaction than one that fails and costs its fee each time."""
        call = {"from": hexed(self.publisher), "to": hexed(self._contract), "data": hexed(data)}
        gas = await node.number("eth_estimateGas", call)
        if gas > GAS_LIMIT:
            raise ChainMisconfiguredError("CHAIN_ID", f"on this chain an anchor takes {gas} gas, more than {GAS_LIMIT}")

    async def _fees(self, node: Node) -> _Fees:
        block = await node.members("eth_getBlockByNumber", "latest", False)
        base_fee = block and block.get("baseFeePerGas")
        if base_fee is None:
            raise ChainMisconfiguredError("CHAIN_ID", "the chain has no EIP-1559 fees")
        try:
            advice = await node.call("eth_maxPriorityFeePerGas")
        except RpcError as error:
            if error.code != METHOD_NOT_FOUND:  # a rate limit, say, is no advice either, and passes
                raise
            advice = None
        priority = DEFAULT_PRIORITY_FEE_WEI if advice is None else node.quantity(advice)
        return _Fees(node.quantity(base_fee), priority)

    async def broadcast(self, transaction: SignedTransaction) -> None:
        """Send it. Safe to repeat: the same bytes have the same nonce, which the chain takes once.

        Each client words its refusal of a repeat differently, so the node is asked whether it has the transaction, or
        its chain is past the nonce; `find` sees which.
        """

        async def send(node: Node) -> None:
            try:
                await node.call("eth_sendRawTransaction", hexed(transaction.raw))
            except RpcError as error:
                words = error.message.lower()
                if any(one in words for one in _ACCEPTED_BEFORE) or await self._is_known(node, transaction):
                    return
                if any(one in words for one in _UNDERPRICED):
                    raise UnderpricedError(str(error)) from None
                raise

        await self._nodes.ask(send)

    async def _is_known(self, node: Node, transaction: SignedTransaction) -> bool:
        if await node.members("eth_getTransactionByHash", hexed(transaction.hash)) is not None:
            return True
        return await used_nonces(node, transaction.publisher) > transaction.nonce

    async def find(
        self, root: Hash, transactions: Sequence[SignedTransaction], stored: Anchor | None = None
    ) -> Sighting:
        """Look for the transactions of a batch on one node after another; see `sessions.storage.chain.Chain.find`.

        A node that lacks what was stored before counts as away, unless it shows other blocks. One that has lost the
        transactions counts as away as well, if the contract has the root: a second transaction would cost money, and
        change nothing there.
        """
        ours = [transaction for transaction in transactions if transaction.chain_id == self.chain_id]
        held = stored is not None and stored.block_hash is not None and stored.chain_id == self.chain_id

        async def look(node: Node) -> Sighting:
            one = Look(
                node=node,
                root=root,
                ours=ours,
                confirmations=self._confirmations,
                stored=stored if held else None,
            )
            return await one.sighting()

        return await self._nodes.ask(look)

    async def balance_wei(self) -> int:
        """What the publisher's account holds, in wei."""
        return await self._nodes.ask(lambda node: node.number("eth_getBalance", hexed(self.publisher), "latest"))
