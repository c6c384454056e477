"""The chain: one suite, on the twin and on a real EVM node; then what only a real node and its network can do."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from sessions.core.receipt import Anchor, AnchorState
from sessions.core.types import Hash
from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError, HistoryLostError
from sessions.storage.chain import Inclusion
from sessions.storage.evm import DEFAULT_PRIORITY_FEE_WEI, GAS_LIMIT, GWEI, EvmChain
from tests.contract.chains import AnvilRig, Change, MemoryRig, Rig, answers, proxied, refuse

ROOT, OTHER = Hash(hashlib.sha256(b"root").digest()), Hash(hashlib.sha256(b"other").digest())


@pytest.fixture(params=["memory", "anvil"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return MemoryRig() if request.param == "memory" else request.getfixturevalue("real")


async def test_check_and_balance(rig: Rig) -> None:
    await rig.chain.check()
    assert await rig.chain.balance_wei() > 10**17


async def test_a_transaction_gets_into_a_block_and_becomes_confirmed(rig: Rig) -> None:
    signed = await rig.chain.sign(ROOT)
    before = await rig.chain.find(ROOT, [signed])
    assert (before.inclusion, before.live) == (None, signed)
    await rig.chain.broadcast(signed)
    await rig.chain.broadcast(signed)  # "already known"
    assert (await rig.chain.find(ROOT, [signed])).inclusion is None
    rig.mine()
    after = await rig.chain.find(ROOT, [signed])
    assert after.inclusion.transaction == signed
    assert after.inclusion.block_number == after.head
    assert after.inclusion.block_number > after.confirmed_height
    assert 0 < after.inclusion.gas_used < 50_000
    assert after.live is None
    rig.mine()
    again = await rig.chain.find(ROOT, [signed])
    assert again.inclusion == after.inclusion
    assert again.inclusion.block_number <= again.confirmed_height
    await rig.chain.broadcast(signed)  # "nonce too low"


async def test_signing_again_without_sending_takes_the_same_nonce(rig: Rig) -> None:
    first = await rig.chain.sign(ROOT)
    second = await rig.chain.sign(OTHER)
    assert first.nonce == second.nonce
    assert first.hash != second.hash


async def test_a_replacement_is_taken_at_the_same_nonce(rig: Rig) -> None:
    stuck = await rig.chain.sign(ROOT)
    await rig.chain.broadcast(stuck)
    faster = await rig.chain.sign(ROOT, replaces=stuck)
    assert faster.nonce == stuck.nonce
    assert faster.max_fee_wei * 10 >= stuck.max_fee_wei * 11
    await rig.chain.broadcast(faster)
    assert (await rig.chain.find(ROOT, [stuck, faster])).live == faster
    rig.mine()
    found = await rig.chain.find(ROOT, [stuck, faster])
    assert found.inclusion.transaction == faster
    assert found.live is None


async def test_a_replacement_above_the_cap_is_none(rig: Rig) -> None:
    signed = await rig.chain.sign(ROOT)
    at_the_cap = replace(signed, max_fee_wei=200 * GWEI)
    assert await rig.chain.sign(ROOT, replaces=at_the_cap) is None


async def test_a_transaction_of_another_key_is_not_replaced(rig: Rig) -> None:
    signed = await rig.chain.sign(ROOT)
    assert await rig.chain.sign(ROOT, replaces=replace(signed, publisher=b"\x09" * 20)) is None


async def test_a_chain_that_asks_for_more_than_the_cap_means_waiting(rig: Rig) -> None:
    signed = await rig.chain.sign(ROOT)
    rig.ask_for(201 * GWEI)
    with pytest.raises(ChainUnavailableError, match=r"cap|CHAIN_MAX_FEE_GWEI"):
        await rig.chain.sign(ROOT)
    assert await rig.chain.sign(ROOT, replaces=signed) is None


async def test_a_reorganisation_takes_it_out_and_the_same_bytes_bring_it_back(rig: Rig) -> None:
    signed = await rig.chain.sign(ROOT)
    await rig.chain.broadcast(signed)
    rig.mine()
    block = (await rig.chain.find(ROOT, [signed])).inclusion
    rig.reorganise(1)
    gone = await rig.chain.find(ROOT, [signed], block.anchor(confirmed=False))
    assert gone.inclusion is None
    assert gone.live == signed
    await rig.chain.broadcast(signed)
    rig.mine()
    back = (await rig.chain.find(ROOT, [signed])).inclusion
    assert back.transaction == signed
    assert back.block_hash != block.block_hash


async def test_a_nonce_that_somebody_else_used_leaves_nothing_live(rig: Rig) -> None:
    signed = await rig.chain.sign(ROOT)
    rig.use_nonce()
    found = await rig.chain.find(ROOT, [signed])
    assert (found.inclusion, found.live, found.spent) == (None, None, False)  # that may be reorganised away
    rig.mine()
    assert (await rig.chain.find(ROOT, [signed])).spent
    await rig.chain.broadcast(signed)  # "nonce too low" is not the end
    again = await rig.chain.sign(ROOT)
    assert again.nonce == signed.nonce + 1


async def test_a_node_that_lost_the_transaction_counts_as_away(rig: Rig) -> None:
    """The contract has the root, so it needs no second transaction; nor is it known in which block it is."""
    signed = await rig.chain.sign(ROOT)
    await rig.chain.broadcast(signed)
    rig.mine()
    async with rig.forgetful() as chain:
        with pytest.raises(HistoryLostError, match="lost the transaction"):
            await chain.find(ROOT, [signed])
        found = await chain.find(OTHER, [signed])  # somebody else's transaction
        assert (found.inclusion, found.live) == (None, None)


async def test_transactions_of_another_chain_are_not_looked_for(rig: Rig) -> None:
    signed = replace(await rig.chain.sign(ROOT), chain_id=999)
    elsewhere = Anchor(state=AnchorState.INCLUDED, chain_id=999, block_number=10**6, block_hash=bytes(32))
    found = await rig.chain.find(ROOT, [signed], elsewhere)  # another chain's heights mean nothing here
    assert (found.inclusion, found.live, found.spent) == (None, None, True)


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_node_that_is_behind_counts_as_away(rig: Rig, confirmed: bool) -> None:
    """It has neither the block nor another one in its place."""
    signed = await rig.chain.sign(ROOT)
    later = Inclusion(
        transaction=signed, block_number=1000, block_hash=b"\7" * 32, block_timestamp=2**40, gas_used=46_000
    )
    with pytest.raises(ChainUnavailableError, match=r"behind|no other block"):
        await rig.chain.find(ROOT, [signed], later.anchor(confirmed=confirmed))


# What only the real one has.


async def test_the_contract_says_what_was_anchored(real: AnvilRig) -> None:
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()
    inclusion = (await real.chain.find(ROOT, [signed])).inclusion
    assert real.anchored_at(ROOT) == inclusion.block_timestamp
    assert signed.hash == bytes.fromhex(
        real.node.call("eth_getTransactionByHash", "0x" + signed.hash.hex())["hash"][2:]
    )


async def test_finality_is_the_chains_own(real: AnvilRig) -> None:
    chain = real.another(confirmations="finalized")
    await chain.check()
    signed = await chain.sign(ROOT)
    await chain.broadcast(signed)
    real.mine()
    seen = await chain.find(ROOT, [signed])
    assert seen.inclusion.block_number > seen.confirmed_height
    real.mine(3)
    seen = await chain.find(ROOT, [signed])
    assert seen.inclusion.block_number <= seen.confirmed_height
    await chain.close()


async def test_the_wrong_chain_or_contract_is_a_setting_to_change(real: AnvilRig) -> None:
    for settings, setting in (
        ({"chain_id": 1}, "CHAIN_ID"),
        ({"contract": b"\xcc" * 20}, "CHAIN_CONTRACT"),
    ):
        chain = real.another(**settings)
        with pytest.raises(ChainMisconfiguredError, match=setting) as caught:
            await chain.check()
        assert caught.value.setting == setting
        with pytest.raises(ChainMisconfiguredError):  # and nothing is signed for it either
            await chain.sign(ROOT)
        await chain.close()


async def test_an_empty_account_waits_for_money(real: AnvilRig) -> None:
    chain = real.another(key="0x" + "42" * 32)
    assert await chain.balance_wei() == 0
    signed = await chain.sign(ROOT)
    with pytest.raises(ChainUnavailableError, match=r"(?i)insufficient funds"):
        await chain.broadcast(signed)
    await chain.close()


async def test_a_replacement_that_offers_too_little_is_refused_by_the_node(real: AnvilRig) -> None:
    first = await real.chain.sign(ROOT)
    second = await real.chain.sign(OTHER)  # same nonce, same fee
    await real.chain.broadcast(first)
    with pytest.raises(ChainUnavailableError, match="underpriced"):
        await real.chain.broadcast(second)


@pytest.mark.parametrize("key", ["", "0x12", "zz" * 32, "0x" + "00" * 32])
def test_what_is_no_key_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(ChainMisconfiguredError, match="CHAIN_KEY_FILE: does not hold a private key") as caught:
        EvmChain(rpc_urls=["http://127.0.0.1:1"], chain_id=1, contract=bytes(20), key=key)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("urls", [[], ["ws://127.0.0.1:1"], ["127.0.0.1:8545"], ["http://127.0.0.1:port"], ["http://"]])
def test_what_is_no_node_is_refused(urls: list[str], real_key: str) -> None:
    with pytest.raises(ChainMisconfiguredError, match="CHAIN_RPC_URLS"):
        EvmChain(rpc_urls=urls, chain_id=1, contract=bytes(20), key=real_key)


@pytest.fixture
def real_key() -> str:
    return "0x" + "42" * 32


def test_the_key_is_in_no_repr(real_key: str) -> None:
    chain = EvmChain(rpc_urls=["http://127.0.0.1:1"], chain_id=1, contract=bytes(20), key=real_key)
    assert "4242" not in repr(chain)
    assert "publisher=0x" in repr(chain)


# Nodes that are away, or that misbehave: a proxy before the real one.


async def test_nodes_are_tried_in_turn_and_the_good_one_is_remembered(real: AnvilRig) -> None:
    chain = real.another(rpc_urls=["http://127.0.0.1:1", real.node.url])
    await chain.check()
    assert await chain.balance_wei() > 0
    assert chain._nodes.names[1] == "127.0.0.1:1"
    await chain.close()


async def test_when_no_node_answers_the_reason_names_hosts_and_no_keys(real: AnvilRig) -> None:
    def break_down(_method: str, _answer: Any) -> Any:
        return web.Response(status=503, text="no")

    async with proxied(real.node.url, break_down) as url:
        chain = real.another(rpc_urls=["http://127.0.0.1:1/secret-api-key", url])
        for act in (chain.check, chain.balance_wei):
            with pytest.raises(ChainUnavailableError, match=r"127.0.0.1:1: eth_chainId: Client.*HTTP 503") as caught:
                await act()
            assert "secret" not in str(caught.value)
        await chain.close()


def unavailable(_method: str, _answer: Any) -> web.Response:
    return web.Response(status=429, text="too many requests")


@pytest.mark.parametrize(
    "fault",
    [
        unavailable,
        answers("eth_chainId", "0x1"),
        answers("eth_getCode", "0x"),
        answers("eth_blockNumber", "0x2"),
        answers("eth_getTransactionReceipt", None),
        refuse("eth_getTransactionReceipt", -32000, "transaction indexing is in progress"),
    ],
    ids=["refuses", "another chain", "no contract", "behind", "receipts lost", "error"],
)
async def test_a_first_node_that_is_wrong_is_passed_over(real: AnvilRig, fault: Change) -> None:
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()
    inclusion = (await real.chain.find(ROOT, [signed])).inclusion
    async with proxied(real.node.url, fault) as url:
        chain = real.another(rpc_urls=[url, real.node.url])
        found = await chain.find(ROOT, [signed], inclusion.anchor(confirmed=False))
        assert found.inclusion == inclusion
        await chain.close()


async def test_a_node_that_hangs_is_given_up(real: AnvilRig) -> None:
    async def never(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    application = web.Application()
    application.router.add_post("/", never)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    chain = real.another(rpc_urls=[f"http://127.0.0.1:{runner.addresses[0][1]}", real.node.url], timeout_seconds=0.3)
    assert await chain.balance_wei() > 0
    await chain.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    "garbage",
    [
        "<html>",
        "[]",
        '"text"',
        "{}",
        '{"jsonrpc": "2.0", "id": 1, "result": "no number"}',
        '{"jsonrpc": "2.0", "id": 1, "result": null}',
        '{"jsonrpc": "2.0", "id": 1, "error": "text"}',
    ],
)
async def test_answers_that_make_no_sense_count_as_away(real: AnvilRig, garbage: str) -> None:
    async with proxied(real.node.url, lambda _method, _answer: web.Response(text=garbage)) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError):
            await chain.check()
        await chain.close()


@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("eth_getCode", "0xzz"),
        ("eth_getBlockByNumber", "text"),
        ("eth_getTransactionReceipt", []),
        ("eth_getTransactionReceipt", {"blockHash": "0x00", "status": None}),
        ("eth_getBlockByHash", None),
    ],
)
async def test_parts_of_answers_that_make_no_sense_count_as_away(real: AnvilRig, method: str, result: Any) -> None:
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()
    async with proxied(real.node.url, answers(method, result)) as url:
        chain = real.another(rpc_urls=[url], confirmations="finalized")
        with pytest.raises(ChainUnavailableError):
            await chain.find(ROOT, [signed])
        await chain.close()


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("eth_getTransactionReceipt", lambda said: {"blockNumber": int(said["blockNumber"], 16)}),
        ("eth_getTransactionReceipt", lambda said: {"blockNumber": said["blockNumber"][2:]}),
        ("eth_getTransactionReceipt", lambda said: {"blockNumber": hex(int(said["blockNumber"], 16) + 1)}),
        ("eth_getTransactionReceipt", lambda said: {"blockNumber": "0x" + "f" * 65}),
        ("eth_getTransactionReceipt", lambda said: {"blockNumber": " " + said["blockNumber"]}),
        ("eth_getTransactionReceipt", lambda said: {"gasUsed": 46161}),
        ("eth_getTransactionReceipt", lambda said: {"status": True}),
        ("eth_getBlockByHash", lambda said: {"timestamp": 1700000000}),
        ("eth_getBlockByHash", lambda said: {"number": None}),
        ("eth_getBlockByHash", lambda said: {"hash": "0x" + "00" * 32}),
    ],
)
async def test_numbers_that_contradict_or_are_none_count_as_away(
    real: AnvilRig, method: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """B39: a decimal number was read as hex, stored, and shut out every honest node from then on."""
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()

    def lie(asked: str, answer: Any) -> Any:
        said = answer["result"]
        return answer | {"result": said | change(said)} if asked == method and said is not None else answer

    async with proxied(real.node.url, lie) as url:
        chain = real.another(rpc_urls=[url, real.node.url])
        found = await chain.find(ROOT, [signed])
        assert found.inclusion is not None, "the next node is honest"
        assert found.inclusion.block_number == found.head
        await chain.close()
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError):
            await chain.find(ROOT, [signed])
        await chain.close()


async def test_a_receipt_far_beyond_the_head_counts_as_away(real: AnvilRig) -> None:
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()
    far = hex(20_000_000)
    lies = {"eth_getTransactionReceipt": {"blockNumber": far}, "eth_getBlockByHash": {"number": far}}

    def lie(asked: str, answer: Any) -> Any:
        return answer | {"result": answer["result"] | lies[asked]} if asked in lies else answer

    async with proxied(real.node.url, lie) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError, match="is at block"):
            await chain.find(ROOT, [signed])
        await chain.close()


async def test_a_failed_transaction_is_no_inclusion(real: AnvilRig) -> None:
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()

    def fail(method: str, answer: Any) -> Any:
        return answer | {"result": answer["result"] | {"status": "0x0"}} if method.endswith("Receipt") else answer

    async with proxied(real.node.url, fail) as url:
        chain = real.another(rpc_urls=[url])
        found = await chain.find(OTHER, [signed])  # of which the contract knows nothing, as of a root that failed
        assert (found.inclusion, found.live) == (None, None)
        await chain.close()


async def test_a_chain_without_finality_is_a_setting_to_change(real: AnvilRig) -> None:
    async with proxied(real.node.url, refuse("eth_getBlockByNumber", -32602, "invalid block tag")) as url:
        chain = real.another(rpc_urls=[url], confirmations="finalized")
        with pytest.raises(ChainMisconfiguredError, match="ANCHOR_CONFIRMATIONS") as caught:
            await chain.check()
        assert caught.value.setting == "ANCHOR_CONFIRMATIONS"
        await chain.close()


@pytest.mark.parametrize(
    "change",
    [
        refuse("eth_getBlockByNumber", -39001, "finalized block not found"),
        refuse("eth_getBlockByNumber", -39001, "Unknown block"),
        refuse("eth_getBlockByNumber", -32000, "unknown block"),
        refuse("eth_getBlockByNumber", -32001, "block not found: finalized"),
        answers("eth_getBlockByNumber", None),
    ],
)
async def test_a_chain_too_young_for_finality_confirms_nothing_yet(real: AnvilRig, change: Change) -> None:
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    real.mine()
    async with proxied(real.node.url, change) as url:
        chain = real.another(rpc_urls=[url], confirmations="finalized")
        found = await chain.find(ROOT, [signed])
        assert found.inclusion is not None
        assert found.confirmed_height == -1
        await chain.close()


async def test_another_error_about_finality_is_only_unavailable(real: AnvilRig) -> None:
    async with proxied(real.node.url, refuse("eth_getBlockByNumber", -32005, "slow down")) as url:
        chain = real.another(rpc_urls=[url], confirmations="finalized")
        with pytest.raises(ChainUnavailableError, match="slow down"):
            await chain.check()
        await chain.close()


async def test_a_chain_where_an_anchor_costs_too_much_gas_gets_no_transaction(real: AnvilRig) -> None:
    async with proxied(real.node.url, answers("eth_estimateGas", hex(GAS_LIMIT + 1))) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainMisconfiguredError, match="60001 gas"):
            await chain.sign(ROOT)
        await chain.close()


async def test_a_chain_without_eip_1559_is_refused(real: AnvilRig) -> None:
    async with proxied(real.node.url, answers("eth_getBlockByNumber", {"number": "0x1"})) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainMisconfiguredError, match="EIP-1559"):
            await chain.sign(ROOT)
        await chain.close()


@pytest.mark.parametrize(
    "change",
    [refuse("eth_maxPriorityFeePerGas", -32601, "what?"), answers("eth_maxPriorityFeePerGas", None)],
)
async def test_without_advice_on_fees_there_is_a_default(real: AnvilRig, change: Change) -> None:
    async with proxied(real.node.url, change) as url:
        chain = real.another(rpc_urls=[url])
        assert (await chain.sign(ROOT)).priority_fee_wei == DEFAULT_PRIORITY_FEE_WEI
        await chain.close()


async def test_a_rate_limit_is_no_advice_on_fees(real: AnvilRig) -> None:
    """B41: it counted as none, and a transaction was signed with the default."""
    async with proxied(real.node.url, refuse("eth_maxPriorityFeePerGas", -32005, "slow down")) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError, match="slow down"):
            await chain.sign(ROOT)
        await chain.close()


def as_http_error(status: int, method: str, answered: dict[str, Any]) -> Change:
    """The node says it in JSON-RPC under the status of an error, as Besu and some providers do."""
    body = {"jsonrpc": "2.0", "id": 1} | answered
    return lambda asked, answer: web.json_response(body, status=status) if asked == method else answer


@pytest.mark.parametrize(
    "answered", [{"error": {"code": -32601, "message": "Method not found"}}, {"result": None}], ids=["unknown", "null"]
)
async def test_no_advice_on_fees_may_come_with_an_http_error(real: AnvilRig, answered: dict[str, Any]) -> None:
    """B41: nothing was ever signed on such a node."""
    async with proxied(real.node.url, as_http_error(400, "eth_maxPriorityFeePerGas", answered)) as url:
        chain = real.another(rpc_urls=[url])
        assert (await chain.sign(ROOT)).priority_fee_wei == DEFAULT_PRIORITY_FEE_WEI
        await chain.close()


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_a_rate_limit_under_an_http_error_is_a_refusal_in_its_words(real: AnvilRig, status: int) -> None:
    limit = {"error": {"code": -32005, "message": "slow down"}}
    async with proxied(real.node.url, as_http_error(status, "eth_maxPriorityFeePerGas", limit)) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError, match="slow down"):
            await chain.sign(ROOT)
        await chain.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"jsonrpc": "2.0", "id": 1, "result": "0x' + b"0" * 9 * 2**20 + b'1"}', "more than 8388608 bytes"),
        (b"[" * 200_000, "not an answer in JSON-RPC"),
        (b"1" * 10_000, "not an answer in JSON-RPC"),
        (b"\xff", "not an answer in JSON-RPC"),
        (b"", "not an answer in JSON-RPC"),
    ],
    ids=["large", "deep", "long number", "not UTF-8", "empty"],
)
async def test_a_body_is_read_within_bounds(real: AnvilRig, body: bytes, words: str) -> None:
    def flood(asked: str, answer: Any) -> Any:
        return web.Response(body=body) if asked == "eth_getBalance" else answer

    async with proxied(real.node.url, flood) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError, match=words):
            await chain.balance_wei()
        await chain.close()


@pytest.mark.parametrize("words", ["AlreadyKnown", "OldNonce, Current nonce: 1", "existing tx with same hash", "no"])
@pytest.mark.parametrize("mined", [False, True])
async def test_a_repeat_is_taken_for_what_it_is_whatever_the_words(real: AnvilRig, words: str, mined: bool) -> None:
    """B35: nodes say in words of their own that they have a transaction."""
    signed = await real.chain.sign(ROOT)
    await real.chain.broadcast(signed)
    if mined:
        real.mine()
    async with proxied(real.node.url, refuse("eth_sendRawTransaction", -32010, words)) as url:
        chain = real.another(rpc_urls=[url])
        await chain.broadcast(signed)
        await chain.close()


async def test_a_refusal_of_what_the_node_does_not_have_is_one(real: AnvilRig) -> None:
    signed = await real.chain.sign(ROOT)
    refused = refuse("eth_sendRawTransaction", -32000, "insufficient funds")

    def unknown(method: str, answer: Any) -> Any:
        return answers("eth_getTransactionByHash", None)(method, refused(method, answer))

    async with proxied(real.node.url, unknown) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError, match="insufficient funds"):
            await chain.broadcast(signed)
        await chain.close()


async def test_what_a_node_says_is_cut_short(real: AnvilRig) -> None:
    async with proxied(real.node.url, refuse("eth_getBalance", 7, "x" * 10_000)) as url:
        chain = real.another(rpc_urls=[url])
        with pytest.raises(ChainUnavailableError) as caught:
            await chain.balance_wei()
        assert len(str(caught.value)) < 300
        await chain.close()


async def test_no_log_has_a_key_of_a_url(caplog: pytest.LogCaptureFixture, real_key: str) -> None:
    caplog.set_level(logging.DEBUG)
    urls = ["http://127.0.0.1:1/secret-api-key"]
    chain = EvmChain(rpc_urls=urls, chain_id=1, contract=bytes(20), key=real_key)
    with pytest.raises(ChainUnavailableError):
        await chain.balance_wei()
    await chain.close()
    assert "secret" not in caplog.text
