"""Chains whose blocks come when a test wants them: the twin, and a real EVM node, which may answer wrongly."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from scripts.devstack.anvil import Anvil
from sessions.core.anchor_contract import decode_uint64, encode_anchored_at_call
from sessions.storage.chain import Chain
from sessions.storage.evm import GWEI, EvmChain
from sessions.storage.memory_chain import MemoryChain


class Rig(Protocol):
    """A chain whose blocks come when the test wants them; a block is confirmed when another is on top of it."""

    chain: Chain

    def mine(self, blocks: int = 1) -> None: ...
    def reorganise(self, depth: int) -> None: ...
    def use_nonce(self) -> None: ...
    def ask_for(self, base_fee_wei: int) -> None: ...
    def forgetful(self) -> AbstractAsyncContextManager[Chain]: ...


class MemoryRig:
    def __init__(self) -> None:
        self.chain = MemoryChain(confirmations=2, cap_wei=200 * GWEI)
        self.mine, self.reorganise, self.use_nonce = self.chain.mine, self.chain.reorganise, self.chain.use_nonce

    def ask_for(self, base_fee_wei: int) -> None:
        self.chain.base_fee_wei = base_fee_wei

    @asynccontextmanager
    async def forgetful(self) -> AsyncIterator[Chain]:
        self.chain.forgetful = True
        yield self.chain
        self.chain.forgetful = False


class AnvilRig:
    def __init__(self, node: Anvil, contract: bytes, **settings: Any) -> None:
        self.node, self.contract = node, contract
        self.publisher, self.key = node.accounts[0]
        self.chain = self.another(**settings)

    def another(self, **settings: Any) -> EvmChain:
        given = {
            "rpc_urls": [self.node.url],
            "chain_id": self.node.chain_id,
            "contract": self.contract,
            "key": self.key,
            "confirmations": 2,
        }
        return EvmChain(**(given | settings))

    def mine(self, blocks: int = 1) -> None:
        self.node.call("anvil_mine", hex(blocks))

    def reorganise(self, depth: int) -> None:
        self.node.call("anvil_reorg", depth, [])

    def use_nonce(self) -> None:
        self.node.call("anvil_dropAllTransactions")
        self.node.call("eth_sendTransaction", {"from": self.publisher, "to": self.publisher, "gas": hex(21_000)})
        self.mine()

    def ask_for(self, base_fee_wei: int) -> None:
        self.node.call("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))
        self.mine()
        self.node.call("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))

    @asynccontextmanager
    async def forgetful(self) -> AsyncIterator[Chain]:
        async with proxied(self.node.url, answers("eth_getTransactionReceipt", None)) as url:
            chain = self.another(rpc_urls=[url])
            yield chain
            await chain.close()

    def anchored_at(self, root: bytes) -> int:
        data = encode_anchored_at_call(bytes.fromhex(self.publisher[2:]), root)
        call = {"to": "0x" + self.contract.hex(), "data": "0x" + data.hex()}
        return decode_uint64(bytes.fromhex(self.node.call("eth_call", call, "latest")[2:]))


Change = Callable[[str, Any], Any]
Instead = Callable[[dict[str, Any]], dict[str, Any] | None]
Route = Callable[[str, list[Any]], str]


@asynccontextmanager
async def proxied(
    target: str, change: Change, route: Route | None = None, instead: Instead | None = None
) -> AsyncIterator[str]:
    """A node whose answers `change(method, answer)` may change, or hold back; a `web.Response` is sent as it is.

    With `route(method, parameters)` there are several backends behind the URL: it says who answers. What `instead(body)`
    returns for a request is the answer, and the node is not asked; None lets it be asked.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if instead is not None and (answered := instead(body)) is not None:
            return web.json_response(answered)
        backend = target if route is None else route(body["method"], body["params"])
        async with aiohttp.ClientSession() as session, session.post(backend, json=body) as answer:
            changed = change(body["method"], await answer.json())
        if inspect.isawaitable(changed):
            changed = await changed
        return changed if isinstance(changed, web.StreamResponse) else web.json_response(changed)

    application = web.Application()
    application.router.add_post("/{key}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/secret-api-key"
    finally:
        await runner.cleanup()


def refuse(method: str, code: int, message: str) -> Change:
    def change(asked: str, answer: Any) -> Any:
        return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}} if asked == method else answer

    return change


def answers(method: str, result: Any) -> Change:
    return lambda asked, answer: {"jsonrpc": "2.0", "id": 1, "result": result} if asked == method else answer
