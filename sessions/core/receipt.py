"""Receipt v1: what a third party keeps, and how it is checked with nothing but a node of the chain."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sessions.core import manifest as manifests
from sessions.core import strict
from sessions.core.errors import CoreError, ReceiptFormatError, VerificationError
from sessions.core.manifest import Manifest
from sessions.core.merkle import verify_inclusion
from sessions.core.types import HASH_BYTES, Hash

_ADDRESS_BYTES: Final = 20
TRANSACTION: Final = "transaction"
"""In `ChainFacts.unknown`: the node does not have the transaction."""
OUTCOME: Final = "outcome"
"""In `ChainFacts.unknown`: the node does not have what became of the transaction, its receipt in the chain's words."""
BLOCK: Final = "block"
"""In `ChainFacts.unknown`: the node does not have the block."""


class AnchorState(StrEnum):
    """How far a batch has come on its way onto the chain; each is stored before the act that follows it."""

    PENDING = "pending"
    """Waits for its batch or its transaction. A crash here loses nothing: the manifest is stored."""
    SUBMITTED = "submitted"
    """The signed transaction is stored, and may have been broadcast. After a crash the same bytes go out again."""
    INCLUDED = "included"
    """In a block that may still be reorganised away; then it goes back to submitted."""
    CONFIRMED = "confirmed"
    """In a block that is final, or as deep as the operator asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A session's place in the tree that one transaction anchors; `path` is leaf to root."""

    root: Hash
    size: int
    index: int
    path: tuple[Hash, ...]

    def to_json(self) -> dict[str, Any]:
        """The place as a JSON object."""
        return {
            "root": self.root.hex(),
            "size": self.size,
            "index": self.index,
            "path": [node.hex() for node in self.path],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The transaction. Addresses are 20 bytes, hashes 32; `block_timestamp` is in seconds since 1970."""

    state: AnchorState = AnchorState.PENDING
    chain_id: int | None = None
    contract: bytes | None = None
    publisher: bytes | None = None
    transaction: bytes | None = None
    block_number: int | None = None
    block_hash: bytes | None = None
    block_timestamp: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The anchor as a JSON object: hex with `0x`, `null` where not known yet."""
        return {
            "state": self.state.value,
            "chain_id": self.chain_id,
            "contract": _0x(self.contract),
            "publisher": _0x(self.publisher),
            "transaction": _0x(self.transaction),
            "block_number": self.block_number,
            "block_hash": _0x(self.block_hash),
            "block_timestamp": self.block_timestamp,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Manifest, batch and anchor of one session. `batch` is None until the session is in one."""

    manifest: Manifest
    batch: Batch | None
    anchor: Anchor

    def to_json(self) -> dict[str, Any]:
        """The receipt as a JSON object."""
        return {
            "version": 1,
            "manifest": self.manifest.to_json(),
            "batch": self.batch and self.batch.to_json(),
            "anchor": self.anchor.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFacts:
    """What a node of the chain says about a receipt's anchor; None where it says nothing.

    Attributes:
        anchored_at: What the contract's `anchoredAt(publisher, root)` answers, in seconds since 1970.
        unknown: Which of `TRANSACTION`, `OUTCOME` and `BLOCK` the node does not have. Nodes forget history (EIP-4444),
            so nothing follows from that: their facts are None and are not compared.
    """

    chain_id: int
    contract_is_genuine: bool
    anchored_at: int
    transaction_block: int | None
    transaction_contract: bytes | None
    transaction_publisher: bytes | None
    transaction_root: bytes | None
    block_hash: bytes | None
    block_timestamp: int | None
    unknown: frozenset[str] = frozenset()


def verify_batch(receipt: Receipt) -> Batch:
    """Check that the manifest, byte for byte, is the leaf of the batch that the receipt names.

    Raises:
        VerificationError: it is not, or the session is in no batch yet.
    """
    batch = receipt.batch
    if batch is None:
        raise VerificationError("the session is in no batch yet: fetch the receipt again when it is anchored")
    verify_inclusion(receipt.manifest.leaf_hash(), batch.index, batch.size, batch.path, batch.root)
    return batch


def verify_anchor(receipt: Receipt, facts: ChainFacts) -> int:
    """Check every word of the receipt's anchor against the chain, but for those of which the node knows nothing.

    The contract's word is the answer. Where `facts.unknown` is not empty, transaction or block were not checked.

    Returns:
        The time, in seconds since 1970, before which the session was sealed as the manifest says.

    Raises:
        VerificationError: the chain says otherwise, or has no such anchor.
    """
    batch, anchor = verify_batch(receipt), receipt.anchor
    if anchor.state not in (AnchorState.INCLUDED, AnchorState.CONFIRMED):
        raise VerificationError(f"the anchor is only {anchor.state.value}: fetch the receipt again later")
    _same("chain id", facts.chain_id, anchor.chain_id)
    if not facts.contract_is_genuine:
        raise VerificationError("the contract's code is not that of LucidAnchors, so its answers prove nothing")
    if not facts.anchored_at:
        raise VerificationError("the chain has no anchor of this batch root by this publisher")
    for part, what, on_chain, in_receipt in (
        (TRANSACTION, "transaction's contract", facts.transaction_contract, anchor.contract),
        (TRANSACTION, "transaction's publisher", facts.transaction_publisher, anchor.publisher),
        (TRANSACTION, "transaction's root", facts.transaction_root, batch.root),
        (OUTCOME, "block number", facts.transaction_block, anchor.block_number),
        (BLOCK, "block hash", facts.block_hash, anchor.block_hash),
        (BLOCK, "block time", facts.block_timestamp, anchor.block_timestamp),
    ):
        if part not in facts.unknown:
            _same(what, on_chain, in_receipt)
    return facts.anchored_at


def _same(what: str, on_chain: object, in_receipt: object) -> None:
    if on_chain is None or on_chain != in_receipt:
        raise VerificationError(f"the {what} on the chain is not that of the receipt")


def from_json(value: object) -> Receipt:
    """Read a receipt from a JSON object.

    Raises:
        ReceiptFormatError: a member is missing, unknown or of the wrong type.
    """
    read = strict.Reader("receipt", value, ("version", "manifest", "batch", "anchor"), ReceiptFormatError)
    read.integer("version", 1, 1)
    try:
        manifest = manifests.from_json(read.value("manifest"))
    except CoreError as error:
        raise ReceiptFormatError(str(error)) from error
    return Receipt(
        manifest=manifest,
        batch=read.optional("batch", lambda name: _batch(read.value(name))),
        anchor=_anchor(read.value("anchor")),
    )


def from_bytes(data: bytes | str) -> Receipt:
    """Read a receipt file.

    Raises:
        ReceiptFormatError: not a receipt.
    """
    return from_json(strict.loads(data, "receipt", ReceiptFormatError))


def _batch(value: object) -> Batch:
    read = strict.Reader("receipt's batch", value, Batch.__dataclass_fields__, ReceiptFormatError)
    return Batch(
        root=Hash(read.hex("root", HASH_BYTES)),
        size=read.integer("size", 1),
        index=read.integer("index"),
        path=tuple(map(Hash, read.hexes("path", HASH_BYTES))),
    )


def _anchor(value: object) -> Anchor:
    members: Mapping[str, Any] = Anchor.__dataclass_fields__
    read = strict.Reader("receipt's anchor", value, members, ReceiptFormatError)
    return Anchor(
        state=AnchorState(read.one_of("state", list(AnchorState))),
        chain_id=read.optional("chain_id", read.integer),
        contract=read.optional("contract", lambda name: read.hex(name, _ADDRESS_BYTES, "0x")),
        publisher=read.optional("publisher", lambda name: read.hex(name, _ADDRESS_BYTES, "0x")),
        transaction=read.optional("transaction", lambda name: read.hex(name, HASH_BYTES, "0x")),
        block_number=read.optional("block_number", read.integer),
        block_hash=read.optional("block_hash", lambda name: read.hex(name, HASH_BYTES, "0x")),
        block_timestamp=read.optional("block_timestamp", read.integer),
    )


def _0x(value: bytes | None) -> str | None:
    return None if value is None else "0x" + value.hex()
