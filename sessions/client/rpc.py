"""The few JSON-RPC calls that checking an anchor takes, to any node of an EVM chain (Ethereum JSON-RPC specification).

The node is the verifier's choice, and is trusted to tell what is on its chain. What it answers is bounded in size and
checked in form.
"""

import json
import re
from itertools import count
from types import TracebackType
from typing import Any, Final, Self

import httpx

from sessions.client.errors import NodeError, UnreachableError
from sessions.client.proxies import through_proxies
from sessions.client.urls import checked_url
from sessions.core import anchor_contract
from sessions.core import receipt as receipts
from sessions.core.errors import FormatError
from sessions.core.receipt import Anchor, ChainFacts
from sessions.core.types import HASH_BYTES

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A block with all its transaction hashes has about one."""
TIMEOUT_SECONDS: Final = 20.0
"""Longest time for a part of an answer, in seconds."""
CONNECT_SECONDS: Final = 5.0
"""Longest time for a connection to one address of the node, in seconds; then the next one is tried."""

_PRUNED_HISTORY: Final = 4444
"""JSON-RPC code for blocks and transactions that a node no longer keeps (EIP-4444)."""
_QUANTITY = re.compile(r"0x(?:0|[1-9a-f][0-9a-f]{0,63})")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_ADDRESS_BYTES: Final = anchor_contract.ADDRESS_BYTES


class _PrunedError(NodeError):
    """The node no longer keeps what it was asked for."""


class JsonRpc:
    """A node. Errors name its scheme and host only: the rest of such a URL is often an access key."""

    def __init__(self, url: str) -> None:
        parsed = checked_url(url, "the node")
        self._name = f"{parsed.scheme}://{parsed.netloc.decode()}"
        self._url = parsed
        self._ids = count(1)
        self._http = through_proxies(
            lambda: httpx.Client(
                timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
                headers={"Accept-Encoding": "identity"},
                verify=parsed.scheme == "https",  # without TLS there is nothing to verify
            )
        )

    def __repr__(self) -> str:
        return f"JsonRpc({self._name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def call(self, method: str, *params: Any) -> Any:
        """The result of a call.

        Raises:
            NodeError: the node answered an error, or nothing that is an answer.
            UnreachableError: it did not answer.
        """
        number = next(self._ids)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            with self._http.stream("POST", self._url, json=request) as answer:
                body = bytearray()
                for part in answer.iter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise NodeError(f"{self._name} answered {method} with more than {MAX_ANSWER_BYTES} bytes")
        except httpx.HTTPError as error:
            words = str(error) or type(error).__name__
            raise UnreachableError(f"cannot reach the node at {self._name}: {words}", "try another node") from error
        try:
            value = json.loads(bytes(body))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise NodeError(f"{self._name} answered {answer.status_code} and no JSON-RPC", "is this a node's URL?")
        if value.get("error") is not None:
            kind = _PrunedError if _code(value["error"]) == _PRUNED_HISTORY else NodeError
            raise kind(f"the node at {self._name} refused {method}: {_message(value['error'])}")
        if value.get("id") != number or "result" not in value:
            raise NodeError(f"{self._name} answered {method} with something that is not its answer")
        return value["result"]

    def chain_id(self) -> int:
        """Which chain this is."""
        return _quantity(self.call("eth_chainId"), "eth_chainId")

    def code(self, address: bytes) -> bytes:
        """The code at an address; empty when there is none."""
        return _data(self.call("eth_getCode", _hex(address), "latest"), "eth_getCode")

    def read(self, address: bytes, data: bytes) -> bytes:
        """What a contract answers to a call that changes nothing."""
        return _data(self.call("eth_call", {"to": _hex(address), "data": _hex(data)}, "latest"), "eth_call")

    def transaction(self, transaction: bytes) -> dict[str, Any] | None:
        """Return a transaction by its hash; None when the node does not have it, or not any more."""
        return self._history("eth_getTransactionByHash", _hex(transaction))

    def transaction_receipt(self, transaction: bytes) -> dict[str, Any] | None:
        """Return what became of a transaction; None when the node does not know it, or not any more."""
        return self._history("eth_getTransactionReceipt", _hex(transaction))

    def block(self, which: int | str) -> dict[str, Any] | None:
        """Return a block by number, or one of `latest`, `finalized`, without its transactions' bodies.

        None when the node does not have it, or not any more.
        """
        tag = which if isinstance(which, str) else hex(which)
        return self._history("eth_getBlockByNumber", tag, False)

    def _history(self, method: str, *params: Any) -> dict[str, Any] | None:
        try:
            return _object(self.call(method, *params), method)
        except _PrunedError:
            return None


def gather(node: JsonRpc, anchor: Anchor, root: bytes) -> ChainFacts:
    """Ask a node all that `sessions.core.receipt.verify_anchor` compares.

    Raises:
        NodeError: the node's answers have not the form of the specification.
        UnreachableError: it did not answer.
        ValueError: the anchor has no contract, publisher or transaction: then there is nothing to ask.
    """
    if anchor.contract is None or anchor.publisher is None or anchor.transaction is None:
        raise ValueError("the anchor names no contract, publisher or transaction")
    chain_id = node.chain_id()
    genuine = anchor_contract.is_genuine(node.code(anchor.contract))
    anchored_at = 0
    if genuine:
        call = anchor_contract.encode_anchored_at_call(anchor.publisher, root)
        try:
            anchored_at = anchor_contract.decode_uint64(node.read(anchor.contract, call))
        except FormatError as error:
            raise NodeError(str(error)) from error
    transaction = node.transaction(anchor.transaction)
    outcome = node.transaction_receipt(anchor.transaction)
    number = None
    # A transaction that failed is in a block too, and anchored nothing.
    if outcome is not None and outcome.get("status") == "0x1":
        number = _quantity(outcome.get("blockNumber"), "blockNumber")
    stated = anchor.block_number if outcome is None else number
    block = {} if stated is None else node.block(stated)
    asked = {receipts.TRANSACTION: transaction, receipts.OUTCOME: outcome, receipts.BLOCK: block}
    transaction, block = transaction or {}, block or {}
    return ChainFacts(
        chain_id=chain_id,
        contract_is_genuine=genuine,
        anchored_at=anchored_at,
        transaction_block=number,
        transaction_contract=_optional(transaction, "to", _ADDRESS_BYTES),
        transaction_publisher=_optional(transaction, "from", _ADDRESS_BYTES),
        transaction_root=_anchored_root(transaction),
        block_hash=_optional(block, "hash", HASH_BYTES),
        block_timestamp=_quantity(block["timestamp"], "timestamp") if "timestamp" in block else None,
        unknown=frozenset(part for part, answer in asked.items() if answer is None),
    )


def depth(node: JsonRpc, block_number: int) -> tuple[int, bool]:
    """How many blocks are on top of a block, and whether it is final. A chain without finality says no.

    Raises:
        NodeError, UnreachableError: as `JsonRpc.call`.
    """
    latest = node.block("latest") or {}
    try:
        finalized = node.block("finalized") or {}
    except NodeError:
        finalized = {}
    final = "number" in finalized and _quantity(finalized["number"], "number") >= block_number
    return max(0, _quantity(latest.get("number"), "number") - block_number), final


def _anchored_root(transaction: dict[str, Any]) -> bytes | None:
    if "input" not in transaction:
        return None
    try:
        return anchor_contract.decode_anchor_call(_data(transaction["input"], "input"))
    except FormatError:
        return None


def _optional(members: dict[str, Any], name: str, size: int) -> bytes | None:
    if members.get(name) is None:
        return None
    value = _data(members[name], name)
    if len(value) != size:
        raise NodeError(f"the node gave {name} with {len(value)} bytes in place of {size}")
    return value


def _quantity(value: object, what: str) -> int:
    if not (isinstance(value, str) and _QUANTITY.fullmatch(value)):
        raise NodeError(f"the node gave {what} as something that is not a number")
    return int(value, 16)


def _data(value: object, what: str) -> bytes:
    if not (isinstance(value, str) and _DATA.fullmatch(value)):
        raise NodeError(f"the node gave {what} as something that is not bytes in hex")
    return bytes.fromhex(value[2:])


def _object(value: object, what: str) -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return value
    raise NodeError(f"the node answered {what} with something that is not an object")


def _code(error: object) -> object:
    return error.get("code") if isinstance(error, dict) else None


def _message(error: object) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    return str(text)[:200]


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
