"""An auditor who has FORMAT.md, RFC 9162 and a node of the chain, and none of our code.

The part up to the tests uses nothing but Python's own library: what it computes agrees with the services, or the
format document lies.
"""

import hashlib
import json
import os
import struct
import time
import urllib.request
from collections.abc import Iterator

import pytest

from scripts.devstack.process import ROOT
from scripts.devstack.stack import Stack
from tests.e2e.conftest import Api, session_name

MIB = 1024 * 1024
GAS_LIMIT = 50_000

# First 4 bytes of keccak-256 of the signatures in FORMAT.md and LucidAnchors.sol; a test recomputes them.
ANCHORED_AT = ("anchoredAt(address,bytes32)", "f8c2919d")
ANCHOR = ("anchor(bytes32)", "eecdf927")
VERIFY = ("verify(address,bytes32,bytes32,uint64,uint64,bytes32[])", "3497f3b6")


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf(data: bytes) -> bytes:
    return sha(b"\x00" + data)


def tree(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, as it is written there."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha(b"\x01" + tree(leaves[:k]) + tree(leaves[k:]))


def climb(start: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The algorithm of RFC 9162 section 2.1.3.2, bit by bit."""
    assert index < size
    fn, sn, root = index, size - 1, start
    for sibling in path:
        assert sn != 0, "the path is too long"
        if fn & 1 or fn == sn:
            root = sha(b"\x01" + sibling + root)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = sha(b"\x01" + root + sibling)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0, "the path is too short"
    return root


def chunk_leaf(session: str, index: int, envelope: bytes) -> bytes:
    name = session.encode()
    head = b"lucid/chunk/v1\x00" + struct.pack(">H", len(name)) + name
    return leaf(head + struct.pack(">QQ", index, len(envelope)) + sha(envelope))


def canonical(value: object) -> bytes:
    """RFC 8785 for what a manifest holds: objects, lists, integers and ASCII strings without escapes."""
    if isinstance(value, dict):
        return b"{" + b",".join(canonical(name) + b":" + canonical(value[name]) for name in sorted(value)) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, str):
        assert value.isascii()
        assert value.isprintable()
        assert not set(value) & {'"', "\\"}
        return b'"' + value.encode() + b'"'
    assert type(value) is int
    return str(value).encode()


def session_leaf(manifest: dict[str, object]) -> bytes:
    return leaf(b"lucid/session/v1\x00" + sha(canonical(manifest)))


def get(url: str, token: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def rpc(url: str, method: str, *parameters: object) -> object:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        value = json.load(answer)
    assert "error" not in value, value
    return value["result"]


def word(value: bytes | int) -> bytes:
    """An ABI word: 32 bytes, padded on the left."""
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\x00")


def ask(url: str, contract: str, selector: str, *words: bytes | int) -> int:
    data = "0x" + selector + b"".join(map(word, words)).hex()
    answer = rpc(url, "eth_call", {"to": contract, "data": data}, "latest")
    return int(str(answer), 16)


def code_hash(url: str, contract: str) -> str:
    return hashlib.sha256(bytes.fromhex(str(rpc(url, "eth_getCode", contract, "latest"))[2:])).hexdigest()


# Above: the auditor. Below: what it is tried on.

SESSIONS: dict[str, list[bytes]] = {
    "mixed": [
        b"",
        b"x",
        b"lucid " * 10_000,
        os.urandom(MIB),
        os.urandom(17 * MIB),  # its envelope is larger than any MongoDB document
        os.urandom(1000),
        os.urandom(MIB + 1),
    ],
    "one": [b"a single chunk"],
    "none": [],
    "empty-chunk": [b""],
    "eight": [os.urandom(100 * index) for index in range(8)],
}


@pytest.fixture(scope="module")
def recorded(api: Api, stack: Stack) -> Iterator[dict[str, str]]:
    """Session ids by the kind of session, sealed together so that a batch holds several."""
    larger = {"CHUNK_MAX_BYTES": str(64 * MIB)}
    stack.restart("storage", {**larger, "ANCHOR_INTERVAL_SECONDS": "2"})
    stack.restart("processor", larger)
    names = {kind: session_name(f"audit-{kind}") for kind in SESSIONS}
    for kind, chunks in SESSIONS.items():
        assert api.processor("PUT", f"/api/v1/sessions/{names[kind]}", json={}).status_code == 201
        api.record(names[kind], chunks, seal=False)
    for kind, chunks in SESSIONS.items():
        body = {"chunk_count": len(chunks)}
        assert api.processor("POST", f"/api/v1/sessions/{names[kind]}/seal", json=body).status_code == 200
    yield names
    smaller = {"CHUNK_MAX_BYTES": str(16 * MIB)}
    stack.restart("storage", {**smaller, "ANCHOR_INTERVAL_SECONDS": "1"})
    stack.restart("processor", smaller)


@pytest.fixture(scope="module")
def receipts(api: Api, stack: Stack, recorded: dict[str, str]) -> dict[str, dict]:
    """The receipts, once their anchors are confirmed."""
    found: dict[str, dict] = {}
    end = time.monotonic() + 60
    for kind, name in recorded.items():
        while True:
            url = f"{stack.storage_url}/api/v1/sessions/{name}/receipt"
            found[kind] = json.loads(get(url, api.token("audit")))
            if found[kind]["anchor"]["state"] == "confirmed":
                break
            assert time.monotonic() < end, found[kind]
            time.sleep(0.2)
    return found


@pytest.mark.parametrize("kind", SESSIONS)
def test_envelopes_lead_to_the_chain(
    api: Api, stack: Stack, recorded: dict[str, str], receipts: dict[str, dict], kind: str
) -> None:
    name, receipt = recorded[kind], receipts[kind]
    manifest, batch, anchor = receipt["manifest"], receipt["batch"], receipt["anchor"]
    base, token = f"{stack.storage_url}/api/v1/sessions/{name}", api.token("audit")

    leaves, envelope_bytes = [], 0
    for index, plaintext in enumerate(SESSIONS[kind]):
        envelope = get(f"{base}/chunks/{index}/envelope", token)
        assert envelope[:4] == b"LSE1"
        assert struct.unpack(">QQ", envelope[36:52]) == (index, len(plaintext))
        assert len(plaintext) < 16 or plaintext not in envelope
        leaves.append(chunk_leaf(name, index, envelope))
        envelope_bytes += len(envelope)
    assert tree(leaves).hex() == manifest["root"]
    assert manifest["session_id"] == name
    assert manifest["chunk_count"] == len(leaves)
    assert manifest["missing"] == []
    assert manifest["envelope_bytes"] == envelope_bytes
    assert manifest["plaintext_bytes"] == sum(map(len, SESSIONS[kind]))
    assert manifest["metadata_sha256"] == sha(b"{}").hex()
    assert get(f"{base}/manifest", token) == canonical(manifest)

    for index, hashed in enumerate(leaves):
        proof = json.loads(get(f"{base}/chunks/{index}/proof", token))
        assert proof["leaf_hash"] == hashed.hex()
        path = [bytes.fromhex(node) for node in proof["path"]]
        assert climb(hashed, index, manifest["chunk_count"], path).hex() == manifest["root"]

    path = [bytes.fromhex(node) for node in batch["path"]]
    root = climb(session_leaf(manifest), batch["index"], batch["size"], path)
    assert root.hex() == batch["root"]

    publisher = bytes.fromhex(anchor["publisher"][2:])
    seen = ask(stack.rpc_url, anchor["contract"], ANCHORED_AT[1], publisher, root)
    assert seen == anchor["block_timestamp"] > 0
    transaction = rpc(stack.rpc_url, "eth_getTransactionByHash", anchor["transaction"])
    assert isinstance(transaction, dict)
    assert transaction["input"] == "0x" + ANCHOR[1] + batch["root"]
    assert (transaction["from"], transaction["to"]) == (anchor["publisher"], anchor["contract"])
    assert transaction["blockHash"] == anchor["block_hash"]
    # The contract does the climb itself, too: for whoever trusts no program but the chain's.
    words = (publisher, root, session_leaf(manifest), batch["index"], batch["size"], 6 * 32, len(path), *path)
    assert ask(stack.rpc_url, anchor["contract"], VERIFY[1], *words) == 1
    words = (publisher, root, leaf(b"another"), batch["index"], batch["size"], 6 * 32, len(path), *path)
    assert ask(stack.rpc_url, anchor["contract"], VERIFY[1], *words) == 0


def test_a_root_that_nobody_anchored_is_not_there(stack: Stack, receipts: dict[str, dict]) -> None:
    anchor = receipts["one"]["anchor"]
    publisher, root = bytes.fromhex(anchor["publisher"][2:]), bytes.fromhex(receipts["one"]["batch"]["root"])
    assert ask(stack.rpc_url, anchor["contract"], ANCHORED_AT[1], publisher, sha(root)) == 0
    assert ask(stack.rpc_url, anchor["contract"], ANCHORED_AT[1], bytes(20), root) == 0


def test_a_batch_held_several_sessions(receipts: dict[str, dict]) -> None:
    # So that the paths above were not all empty.
    assert max(receipt["batch"]["size"] for receipt in receipts.values()) > 1


def test_gas_of_an_anchor(api: Api, stack: Stack, receipts: dict[str, dict]) -> None:
    batches = {receipt["batch"]["root"]: receipt for receipt in receipts.values()}
    for root, receipt in batches.items():
        listed = api.storage("GET", f"/api/v1/anchors/{root}").json()
        on_chain = rpc(stack.rpc_url, "eth_getTransactionReceipt", receipt["anchor"]["transaction"])
        assert isinstance(on_chain, dict)
        gas = int(on_chain["gasUsed"], 16)
        print(f"one anchor, {receipt['batch']['size']} sessions: {gas} gas")
        assert listed["gas_used"] == gas
        assert gas < GAS_LIMIT


def test_selectors_are_of_their_signatures() -> None:
    from web3 import Web3

    for signature, selector in (ANCHORED_AT, ANCHOR, VERIFY):
        assert Web3.keccak(text=signature)[:4].hex() == selector


def test_the_code_is_the_one_of_the_format_document(stack: Stack) -> None:
    # FORMAT.md names this file as the place of the hash; it is read as text, not run.
    source = (ROOT / "sessions" / "core" / "anchor_contract.py").read_text()
    assert f'"{code_hash(stack.rpc_url, stack.contract)}"' in source
