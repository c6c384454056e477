"""Receipts of others, chains without the anchor, nodes that lie, a stolen chain key, and the operator himself."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import Binary
from eth_account import Account

from scripts.devstack import process
from scripts.devstack.anvil import Anvil
from scripts.devstack.stack import Stack
from sessions.client import rpc
from sessions.core import anchor_contract
from sessions.core import receipt as receipts
from sessions.core.manifest import Manifest
from sessions.core.types import DekId
from sessions.processor.keys import Dek
from tests.attacks import loot
from tests.attacks.conftest import Kept, failures, fetch_envelopes, receipt_of, scrubbed
from tests.attacks.hands import Hands
from tests.attacks.liar import lying
from tests.e2e.conftest import Api, session_name


def _forged(receipt: bytes) -> tuple[bytes, Manifest]:
    """A receipt for something else, in a batch of its own, under the anchor of this one."""
    true = receipts.from_bytes(receipt)
    manifest = replace(true.manifest, sealed_at="2020-01-01T00:00:00.000Z", opened_at="2020-01-01T00:00:00.000Z")
    batch = receipts.Batch(root=manifest.leaf_hash(), size=1, index=0, path=())
    return json.dumps(replace(true, manifest=manifest, batch=batch).to_json()).encode(), manifest


def _anchored_at(stack: Stack, publisher: str, root: bytes) -> int:
    with rpc.JsonRpc(stack.rpc_url) as node:
        call = anchor_contract.encode_anchored_at_call(bytes.fromhex(publisher[2:]), root)
        return anchor_contract.decode_uint64(node.read(bytes.fromhex(stack.contract[2:]), call))


def test_the_receipt_of_another_session(stack: Stack, kept: dict[str, Kept]) -> None:
    sound, other = kept["sound"], kept["other"]
    assert sound.verify(stack, envelopes=sound.envelopes).verdict == "proven"
    report = sound.verify(stack, envelopes=other.envelopes)
    assert f"it is chunk 0 of session {other.name}" in failures(report)
    mixed = json.loads(sound.receipt) | {"manifest": json.loads(other.receipt)["manifest"]}
    assert sound.verify(stack, receipt=json.dumps(mixed).encode()).failed


def test_a_forged_receipt_under_a_true_anchor(stack: Stack, kept: dict[str, Kept]) -> None:
    forged, manifest = _forged(kept["sound"].receipt)
    assert "no anchor of this batch root" in failures(kept["sound"].verify(stack, receipt=forged))
    assert _anchored_at(stack, stack.publisher, manifest.leaf_hash()) == 0


def test_a_chain_without_the_anchor(stack: Stack, kept: dict[str, Kept], tmp_path: Path) -> None:
    """Another chain with the same number, and the same contract at the same address."""
    fresh = Anvil(tmp_path / "chain")
    fresh.start()
    try:
        from sessions.storage.contract.deploy import deploy

        contract = deploy(fresh.url, fresh.accounts[0][1], 30).address
        assert "0x" + contract.hex() == stack.contract
        report = kept["sound"].verify(stack, node_url=fresh.url)
    finally:
        fresh.stop()
    assert "no anchor of this batch root" in failures(report)


def _set(**members: str) -> Callable[[list[Any], Callable[[], Any]], Any]:
    return lambda _, truth: truth() | members


ZERO, HASH = "0x" + "00" * 32, "0x" + "77" * 32
LIES: dict[str, tuple[dict[str, Callable[[list[Any], Callable[[], Any]], Any]], str]] = {
    "denies the anchor": ({"eth_call": lambda *_: ZERO}, "no anchor of this batch root"),
    "has another contract": ({"eth_getCode": lambda *_: "0x6001"}, "code is not that of LucidAnchors"),
    "is another chain": ({"eth_chainId": lambda *_: "0x1"}, "chain id"),
    "another sender": ({"eth_getTransactionByHash": _set(**{"from": "0x" + "11" * 20})}, "transaction's publisher"),
    "another root": (
        {"eth_getTransactionByHash": _set(input="0x" + anchor_contract.encode_anchor_call(bytes(32)).hex())},
        "transaction's root",
    ),
    "it failed": ({"eth_getTransactionReceipt": _set(status="0x0")}, "block number"),
    "another block": ({"eth_getTransactionReceipt": _set(blockNumber="0x1")}, "block number"),
    "another hash of the block": ({"eth_getBlockByNumber": _set(hash=HASH)}, "block hash"),
    "another time": ({"eth_getBlockByNumber": _set(timestamp="0x5")}, "block time"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_contradicts_a_true_receipt(stack: Stack, kept: dict[str, Kept], lie: str) -> None:
    lies, words = LIES[lie]
    with lying(stack.rpc_url) as liar:
        assert kept["sound"].verify(stack, node_url=liar.url).verdict == "proven"
        liar.lies.update(lies)
        assert words in failures(kept["sound"].verify(stack, node_url=liar.url))


PRUNED: dict[str, dict[str, Callable[[list[Any], Callable[[], Any]], Any]]] = {
    "transactions": {"eth_getTransactionByHash": lambda *_: None},
    "receipts": {"eth_getTransactionReceipt": lambda *_: None},
    "both": {"eth_getTransactionByHash": lambda *_: None, "eth_getTransactionReceipt": lambda *_: None},
}


@pytest.mark.parametrize("pruned", PRUNED)
def test_a_node_that_forgot_the_transaction(stack: Stack, kept: dict[str, Kept], pruned: str) -> None:
    """It contradicts nothing, and helps no forger: the contract's word is all that counts then, and it is said so."""
    forged, _ = _forged(kept["sound"].receipt)
    other_block = json.loads(kept["sound"].receipt)
    other_block["anchor"]["block_hash"] = HASH
    with lying(stack.rpc_url) as liar:
        liar.lies.update(PRUNED[pruned])
        report = kept["sound"].verify(stack, node_url=liar.url)
        assert (report.verdict, report.anchor_proven) == ("proven in part", False)
        assert any("was not checked there: name another node" in step.text for step in report.steps)
        assert "no anchor of this batch root" in failures(
            kept["sound"].verify(stack, receipt=forged, node_url=liar.url)
        )
        altered = json.dumps(other_block).encode()
        assert "block hash" in failures(kept["sound"].verify(stack, receipt=altered, node_url=liar.url))


def test_a_node_that_confirms_a_forged_receipt(stack: Stack, kept: dict[str, Kept]) -> None:
    """Who asks a liar alone is deceived, when he knows the forgery; any other node tells."""
    forged, manifest = _forged(kept["sound"].receipt)
    call = "0x" + anchor_contract.encode_anchor_call(manifest.leaf_hash()).hex()
    with lying(stack.rpc_url) as liar:
        liar.lies["eth_getTransactionByHash"] = _set(input=call)
        assert kept["sound"].verify(stack, receipt=forged, node_url=liar.url).failed
        liar.lies["eth_call"] = lambda *_: "0x" + (1_600_000_000).to_bytes(32, "big").hex()
        assert kept["sound"].verify(stack, receipt=forged, node_url=liar.url).verdict == "proven"
    assert kept["sound"].verify(stack, receipt=forged).failed


def test_a_node_that_lies_to_storage(stack: Stack, api: Api) -> None:
    """It keeps the transaction back and says that it is in a block: the receipt says so, and holds nowhere else.

    When storage asks an honest node again, the anchor is made good.
    """
    name, sent, asked = session_name("lied-to"), [], []
    with lying(stack.rpc_url) as liar:

        def swallow(parameters: list[Any], _: object) -> str:
            sent.append(parameters[0])
            return HASH

        block = stack.anvil.call("eth_getBlockByNumber", "latest", False)

        def included(parameters: list[Any], _: object) -> dict[str, str]:
            asked.append(parameters[0])
            found = {"blockNumber": block["number"], "blockHash": block["hash"]}
            return found | {"status": "0x1", "gasUsed": "0xb000"}

        liar.lies = {
            "eth_sendRawTransaction": swallow,
            "eth_getTransactionReceipt": included,
            "eth_getBlockByHash": lambda _, truth: truth() | {"transactions": asked},
            "eth_call": lambda *_: "0x" + int(block["timestamp"], 16).to_bytes(32, "big").hex(),
        }
        stack.restart("storage", {"CHAIN_RPC_URLS": liar.url})
        try:
            api.record(name, [b"anchored nowhere"])
            receipt = receipt_of(api, name)
            report = Kept(name, [], receipt, Path()).verify(stack)
        finally:
            stack.restart("storage", {"CHAIN_RPC_URLS": stack.rpc_url})
    assert sent
    key = bytes.fromhex(stack.anvil.accounts[1][1][2:])
    assert loot.found({"chain key": key}, [json.dumps(sent).encode()]) == set()
    assert "no anchor of this batch root" in failures(report)

    def proven() -> bool:
        return Kept(name, [], receipt_of(api, name), Path()).verify(stack).verdict == "proven"

    assert process.wait_until(proven, 30)


def test_a_stolen_chain_key(stack: Stack, api: Api, kept: dict[str, Kept]) -> None:
    """It anchors what it likes from now on, and changes nothing that is anchored."""
    thief = Account.from_key(stack.anvil.accounts[1][1])
    assert thief.address.lower() == stack.publisher.lower()
    sound, root = kept["sound"], receipts.from_bytes(kept["sound"].receipt).batch.root
    before = _anchored_at(stack, stack.publisher, root)
    started = int(stack.anvil.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def send(data: bytes) -> dict[str, Any]:
        transaction = {
            "chainId": stack.chain_id,
            "to": stack.anvil.call("eth_getTransactionReceipt", _transaction(sound))["to"],
            "value": 0,
            "data": data,
            "gas": 100_000,
            "nonce": int(stack.anvil.call("eth_getTransactionCount", thief.address, "latest"), 16),
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
        }
        transaction["to"] = _checksum(transaction["to"])
        raw = "0x" + bytes(thief.sign_transaction(transaction).raw_transaction).hex()
        sent = stack.anvil.call("eth_sendRawTransaction", raw)
        end = time.monotonic() + 20
        while (receipt := stack.anvil.call("eth_getTransactionReceipt", sent)) is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        return receipt

    # The first time stays, whatever is called; there is no call that takes an anchor away or sets a time.
    assert send(anchor_contract.encode_anchor_call(root))["logs"] == []
    assert _anchored_at(stack, stack.publisher, root) == before
    functions = {one["name"] for one in _abi() if one["type"] == "function" and one["stateMutability"] != "view"}
    assert functions == {"anchor"}
    # A session of his own making, in the operator's name: it bears the time of its making, and no earlier one.
    forged, manifest = _forged(sound.receipt)
    outcome = send(anchor_contract.encode_anchor_call(manifest.leaf_hash()))
    assert _anchored_at(stack, stack.publisher, manifest.leaf_hash()) >= started
    block = stack.anvil.call("eth_getBlockByNumber", outcome["blockNumber"], False)
    anchor = json.loads(forged)["anchor"] | {
        "transaction": outcome["transactionHash"],
        "block_number": int(block["number"], 16),
        "block_hash": block["hash"],
        "block_timestamp": int(block["timestamp"], 16),
    }
    report = sound.verify(stack, receipt=json.dumps(json.loads(forged) | {"anchor": anchor}).encode())
    assert report.verdict == "proven"
    stated = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(block["timestamp"], 16)))
    assert any(f"existed before {stated}" in step.text for step in report.steps)
    # Who watches the account sees an anchor that no batch is of.
    events = stack.anvil.call("eth_getLogs", {"fromBlock": "0x0", "address": stack.contract})
    on_chain = {event["topics"][2][2:] for event in events}
    listed = {one["root"] for one in api.storage("GET", "/api/v1/anchors?limit=1000").json()["anchors"]}
    assert manifest.leaf_hash().hex() in on_chain - listed
    assert sound.verify(stack, envelopes=sound.envelopes).verdict == "proven"
    # Anchoring goes on beside him.
    name = session_name("beside")
    api.record(name, [b"beside a thief"])
    assert Kept(name, [], receipt_of(api, name), Path()).verify(stack).verdict == "proven"


def _transaction(kept: Kept) -> str:
    return json.loads(kept.receipt)["anchor"]["transaction"]


def _checksum(address: str) -> str:
    from eth_utils.address import to_checksum_address

    return to_checksum_address(address)


def _abi() -> list[dict[str, Any]]:
    from sessions.storage.contract import artefact

    return artefact()["abi"]


def test_the_operator_shreds(stack: Stack, api: Api, kept: dict[str, Kept], tmp_path: Path) -> None:
    one = kept["shredded"]
    assert api.processor("DELETE", f"/api/v1/sessions/{one.name}", "admin").status_code == 200
    view = api.storage("GET", f"/api/v1/sessions/{one.name}").json()
    assert (view["status"], view["shredded_by"], view["shred_reason"]) == ("shredded", "stack-admin", "requested")
    assert view["shredded_at"]
    assert api.storage("GET", f"/api/v1/sessions/{one.name}/receipt").content == one.receipt
    # Who kept the envelopes, too, still proves what was there; storage has none to give.
    assert one.verify(stack, envelopes=one.envelopes).verdict == "proven"
    assert list(fetch_envelopes(api, one.name, 5, tmp_path / "now").iterdir()) == []


def test_the_operator_rewrites_what_is_confirmed(
    stack: Stack, api: Api, hands: Hands, kept: dict[str, Kept], tmp_path: Path
) -> None:
    """With all keys, and all in the database consistent: services and scrub agree; receipt and chain do not."""
    one = kept["operator"]
    document = hands.session(one.name)
    key = Dek(DekId(bytes(document["keys"][0]["dek_id"])), loot.dek(stack, document))
    hands.forge(one.name, 2, key, b"what never was")
    hands.agree(one.name)
    replayed = api.processor("GET", f"/api/v1/sessions/{one.name}/content", "replay").content
    assert replayed == b"".join([*one.chunks[:2], b"what never was", *one.chunks[3:]])
    assert scrubbed(api, one.name) == []
    now = fetch_envelopes(api, one.name, 5, tmp_path / "now")
    assert "a chunk is altered" in failures(one.verify(stack, envelopes=now))
    shown = api.storage("GET", f"/api/v1/sessions/{one.name}/receipt").content
    assert "no anchor of this batch root" in failures(one.verify(stack, receipt=shown, envelopes=now))
    # He anchors the rewriting as well: its time is then later than that of the receipt which somebody kept.
    batch = {"_id": hands.session(one.name)["batch"]["sequence"]}
    hands.db["batches"].update_one(batch, {"$set": {"root": Binary(os.urandom(32))}})  # no root is there twice
    changed = {"$set": {"unbatched": True}, "$unset": {"batch": ""}}
    hands.db["sessions"].update_one({"_id": one.name}, changed)
    end = time.monotonic() + 30
    while "batch" not in hands.session(one.name):
        assert time.monotonic() < end
        time.sleep(0.1)
    later = receipt_of(api, one.name)
    assert one.verify(stack, receipt=later, envelopes=now).verdict == "proven"
    times = [json.loads(receipt)["anchor"]["block_timestamp"] for receipt in (one.receipt, later)]
    assert times[0] < times[1]
    assert one.verify(stack, envelopes=one.envelopes).verdict == "proven"
