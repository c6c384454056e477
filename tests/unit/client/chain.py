"""A chain in memory that speaks the little JSON-RPC that verifying takes; the twin of a real node in the suites."""

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sessions.core import anchor_contract
from sessions.core.receipt import Anchor, AnchorState
from sessions.storage.contract import artefact

PUBLISHER, CONTRACT = b"\x11" * 20, b"\x22" * 20
CODE = bytes.fromhex(artefact()["deployedBytecode"].removeprefix("0x"))


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


class TwinChain:
    """Blocks are only numbers with hashes; a transaction is in the block that it made."""

    def __init__(self) -> None:
        self.url = ""
        self.chain_id = 31337
        self.latest, self.finalized = 10, 5
        self.anchored: dict[tuple[bytes, bytes], int] = {}
        self.transactions: dict[str, dict[str, Any]] = {}
        self.receipts: dict[str, dict[str, Any]] = {}
        self.codes = {CONTRACT: CODE}
        self.override: dict[str, Any] = {}
        self.raw: Response | None = None

    async def __call__(self, request: Request) -> Response:
        asked = await request.json()
        if self.raw is not None:
            return self.raw
        method, params = asked["method"], asked["params"]
        if method in self.override:
            answer = self.override[method]
            if isinstance(answer, Response):
                return answer
        else:
            answer = getattr(self, method)(*params)
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": answer})

    def block_hash(self, number: int) -> bytes:
        return hashlib.sha256(b"block %d" % number).digest()

    @staticmethod
    def time_of(number: int) -> int:
        return 1_700_000_000 + 12 * number

    def publish(self, root: bytes, *, publisher: bytes = PUBLISHER, succeeds: bool = True) -> Anchor:
        self.latest += 1
        number = self.latest
        transaction = hashlib.sha256(b"tx %d" % number + root).digest()
        if succeeds:
            self.anchored.setdefault((publisher, root), self.time_of(number))
        self.transactions[hexed(transaction)] = {
            "from": hexed(publisher),
            "to": hexed(CONTRACT),
            "input": hexed(anchor_contract.encode_anchor_call(root)),
        }
        self.receipts[hexed(transaction)] = {"status": "0x1" if succeeds else "0x0", "blockNumber": hex(number)}
        return Anchor(
            state=AnchorState.CONFIRMED,
            chain_id=self.chain_id,
            contract=CONTRACT,
            publisher=publisher,
            transaction=transaction,
            block_number=number,
            block_hash=self.block_hash(number),
            block_timestamp=self.time_of(number),
        )

    def mine(self, blocks: int) -> None:
        self.latest += blocks
        self.finalized = max(self.finalized, self.latest - 64)

    def eth_chainId(self) -> str:  # noqa: N802
        return hex(self.chain_id)

    def eth_getCode(self, address: str, _at: str) -> str:  # noqa: N802
        return hexed(self.codes.get(bytes.fromhex(address[2:]), b""))

    def eth_call(self, call: dict[str, str], _at: str) -> str:
        data = bytes.fromhex(call["data"][2:])
        return hexed(self.anchored.get((data[16:36], data[36:]), 0).to_bytes(32, "big"))

    def eth_getTransactionByHash(self, transaction: str) -> dict[str, Any] | None:  # noqa: N802
        return self.transactions.get(transaction)

    def eth_getTransactionReceipt(self, transaction: str) -> dict[str, Any] | None:  # noqa: N802
        return self.receipts.get(transaction)

    def eth_getBlockByNumber(self, which: str, _full: bool) -> dict[str, Any] | None:  # noqa: N802
        number = {"latest": self.latest, "finalized": self.finalized}.get(which)
        number = int(which, 16) if number is None else number
        if number > self.latest:
            return None
        return {"number": hex(number), "hash": hexed(self.block_hash(number)), "timestamp": hex(self.time_of(number))}
