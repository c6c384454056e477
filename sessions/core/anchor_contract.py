"""The contract LucidAnchors in bytes: calls, answers and the code it must have.

With this and a plain `eth_call` anybody checks an anchor without a chain library. Encoding: Solidity Contract ABI
Specification. Selectors, topic and code hash are those of `sessions/storage/contract/LucidAnchors.json`; a test
compares them.
"""

import hashlib
from typing import Final

from sessions.core.errors import FormatError
from sessions.core.types import HASH_BYTES, Hash

ADDRESS_BYTES: Final = 20

ANCHOR_SELECTOR: Final = bytes.fromhex("eecdf927")
"""Of `anchor(bytes32)`."""
ANCHORED_AT_SELECTOR: Final = bytes.fromhex("f8c2919d")
"""Of `anchoredAt(address,bytes32)`."""
VERIFY_SELECTOR: Final = bytes.fromhex("3497f3b6")
"""Of `verify(address,bytes32,bytes32,uint64,uint64,bytes32[])`."""
ANCHORED_TOPIC: Final = bytes.fromhex("89a6d921e8e91c18be78a016997c04625db0d36e402bd063eb22521fe39e03c0")
"""Topic 0 of `Anchored(address,bytes32,uint64)`."""
RUNTIME_CODE_SHA256: Final = bytes.fromhex("c829281611b07c7c01dc905291f8e9390c078da4f10d88ca07b0a3fb2cd731e3")
"""SHA-256 of the code that `eth_getCode` gives for the contract: it is the same at every address on every chain."""

_WORD_BYTES: Final = 32


def is_genuine(runtime_code: bytes) -> bool:
    """Whether the code at an address is that of LucidAnchors, so that its answers mean what we think."""
    return hashlib.sha256(runtime_code).digest() == RUNTIME_CODE_SHA256


def encode_anchor_call(root: bytes) -> bytes:
    """Call data of `anchor(root)`; `root` has 32 bytes.

    Raises:
        FormatError: it has not.
    """
    return ANCHOR_SELECTOR + _exactly(HASH_BYTES, root, "root")


def decode_anchor_call(data: bytes) -> Hash:
    """The root that a transaction's call data anchors.

    Raises:
        FormatError: it is not a call of `anchor`.
    """
    if len(data) != len(ANCHOR_SELECTOR) + HASH_BYTES or not data.startswith(ANCHOR_SELECTOR):
        raise FormatError("the transaction does not call anchor(bytes32)")
    return Hash(data[len(ANCHOR_SELECTOR) :])


def encode_anchored_at_call(publisher: bytes, root: bytes) -> bytes:
    """Call data of `anchoredAt(publisher, root)`; the address has 20 bytes, the root 32.

    Raises:
        FormatError: they have not.
    """
    address = _exactly(ADDRESS_BYTES, publisher, "address")
    return ANCHORED_AT_SELECTOR + address.rjust(_WORD_BYTES, b"\0") + _exactly(HASH_BYTES, root, "root")


def decode_uint64(answer: bytes) -> int:
    """The number that a call such as `anchoredAt` answers with.

    Raises:
        FormatError: the answer is not one word that holds a uint64.
    """
    if len(answer) != _WORD_BYTES or any(answer[:-8]):
        raise FormatError("the contract's answer is not a uint64: is this address a LucidAnchors contract?")
    return int.from_bytes(answer, "big")


def _exactly(size: int, value: bytes, what: str) -> bytes:
    if len(value) != size:
        raise FormatError(f"a {what} has {size} bytes, this has {len(value)}")
    return bytes(value)
