"""A node that answers nonsense, errors, or nothing."""

import socket
from collections.abc import Iterator

import pytest
from starlette.responses import JSONResponse, Response

from sessions.client import rpc
from sessions.client.errors import ClientError, NodeError, UnreachableError
from tests.unit.client.chain import CONTRACT, TwinChain
from tests.unit.client.fake import Cut, serve

ROOT = b"\7" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[TwinChain]]]:
    current: list[TwinChain] = []

    async def endpoint(request):
        return await current[-1](request)

    with serve(endpoint) as url:
        yield url, current


@pytest.fixture
def chain(server) -> TwinChain:
    twin = TwinChain()
    twin.url = server[0]
    server[1].append(twin)
    return twin


@pytest.fixture
def node(chain: TwinChain) -> Iterator[rpc.JsonRpc]:
    with rpc.JsonRpc(chain.url) as one:
        yield one


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>"),
        Response("[1]"),
        Response("[" * 100_000),
        Response("", 500),
        JSONResponse({"jsonrpc": "2.0", "id": 99, "result": "0x1"}),
        JSONResponse({"jsonrpc": "2.0", "id": 1}),
        JSONResponse({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}),
        JSONResponse({"jsonrpc": "2.0", "id": 1, "error": "no"}),
        Response(b" " * (rpc.MAX_ANSWER_BYTES + 1)),
    ],
)
def test_answers_that_are_none(chain: TwinChain, node: rpc.JsonRpc, answer) -> None:
    chain.raw = answer
    with pytest.raises(NodeError):
        node.chain_id()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("eth_chainId", "31337"),
        ("eth_chainId", 31337),
        ("eth_chainId", "0x01"),
        ("eth_getCode", "0x1"),
        ("eth_getCode", None),
        ("eth_call", "0x"),
        ("eth_call", "0x" + "ff" * 32),
        ("eth_getTransactionByHash", "x"),
        ("eth_getTransactionByHash", {"to": "0x11"}),
        ("eth_getTransactionByHash", {"input": 5}),
        ("eth_getTransactionReceipt", {"status": "0x1"}),
        ("eth_getBlockByNumber", {"timestamp": 5}),
        ("eth_getBlockByNumber", {"hash": "0x1122"}),
    ],
)
def test_values_of_the_wrong_form(chain: TwinChain, node: rpc.JsonRpc, method, answer) -> None:
    anchor = chain.publish(ROOT)
    chain.override[method] = answer
    with pytest.raises(NodeError):
        rpc.gather(node, anchor, ROOT)


def test_what_the_node_does_not_know(chain: TwinChain, node: rpc.JsonRpc) -> None:
    anchor = chain.publish(ROOT)
    for method in ("eth_getTransactionByHash", "eth_getTransactionReceipt", "eth_getBlockByNumber"):
        chain.override[method] = None
    facts = rpc.gather(node, anchor, ROOT)
    assert facts.anchored_at
    assert facts.transaction_root is facts.block_hash is facts.transaction_block is None
    assert facts.unknown == {"transaction", "outcome", "block"}


@pytest.mark.parametrize("pruned", [True, False])
def test_history_that_is_pruned_is_unknown(chain: TwinChain, node: rpc.JsonRpc, pruned: bool) -> None:
    """EIP-4444: nodes answer with null, or with an error of their own."""
    anchor = chain.publish(ROOT)
    code = 4444 if pruned else -32000
    error = {"code": code, "message": "pruned history unavailable"}
    chain.override["eth_getTransactionByHash"] = JSONResponse({"jsonrpc": "2.0", "id": 4, "error": error})
    if pruned:
        assert rpc.gather(node, anchor, ROOT).unknown == {"transaction"}
    else:
        with pytest.raises(NodeError, match="pruned history"):
            rpc.gather(node, anchor, ROOT)


def test_without_a_receipt_the_block_of_the_anchor_is_asked_for(chain: TwinChain, node: rpc.JsonRpc) -> None:
    anchor = chain.publish(ROOT)
    chain.override["eth_getTransactionReceipt"] = None
    facts = rpc.gather(node, anchor, ROOT)
    assert (facts.transaction_block, facts.block_hash) == (None, anchor.block_hash)
    assert facts.unknown == {"outcome"}


def test_a_transaction_that_creates_a_contract(chain: TwinChain, node: rpc.JsonRpc) -> None:
    anchor = chain.publish(ROOT)
    chain.override["eth_getTransactionByHash"] = {"to": None, "from": "0x" + "AB" * 20, "input": "0x6001"}
    facts = rpc.gather(node, anchor, ROOT)
    assert (facts.transaction_contract, facts.transaction_root) == (None, None)
    assert facts.transaction_publisher == b"\xab" * 20


def test_code_that_is_not_the_contract_is_not_asked(chain: TwinChain, node: rpc.JsonRpc) -> None:
    anchor = chain.publish(ROOT)
    chain.codes[CONTRACT] = b"\x60\x01"
    chain.override["eth_call"] = "nonsense"
    facts = rpc.gather(node, anchor, ROOT)
    assert (facts.contract_is_genuine, facts.anchored_at) == (False, 0)


def test_a_chain_without_finality(chain: TwinChain, node: rpc.JsonRpc) -> None:
    assert rpc.depth(node, 3) == (7, True)
    assert rpc.depth(node, 9) == (1, False)
    chain.override["eth_getBlockByNumber"] = {"number": "0x9"}
    assert rpc.depth(node, 20) == (0, False)

    def only_latest(which: str, _full: bool):
        return {"number": "0xa"} if which == "latest" else "unknown block tag"

    del chain.override["eth_getBlockByNumber"]
    chain.eth_getBlockByNumber = only_latest
    assert rpc.depth(node, 9) == (1, False)


def test_a_node_that_is_away_or_breaks_off(chain: TwinChain, node: rpc.JsonRpc) -> None:
    chain.raw = Cut(b"{", 100)
    with pytest.raises(UnreachableError, match="cannot reach the node"):
        node.chain_id()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with rpc.JsonRpc(f"http://127.0.0.1:{port}/secret-key") as away:
        with pytest.raises(UnreachableError) as caught:
            away.chain_id()
        assert "secret-key" not in f"{caught.value} {away!r}"


@pytest.mark.parametrize("url", ["", "ws://x", "http://", "host:8545", "http://\0", "http://h:70000/secret"])
def test_urls_that_are_none(url) -> None:
    with pytest.raises(ClientError) as caught:
        rpc.JsonRpc(url)
    assert "secret" not in str(caught.value)
