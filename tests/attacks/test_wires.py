"""Who listens between the parts, where there is no TLS. What TLS refuses is tested with TLS itself."""

import os
from urllib.parse import urlsplit

from scripts.devstack.stack import Stack
from tests.attacks import loot
from tests.attacks.conftest import receipt_of
from tests.attacks.hands import Hands
from tests.attacks.liar import listening_before
from tests.e2e.conftest import Api, session_name


def _port(url: str) -> int:
    return urlsplit(url).port or 0


def test_what_passes_on_the_wires(stack: Stack, api: Api, hands: Hands) -> None:
    name, secret = session_name("wire"), os.urandom(32)
    with (
        listening_before(_port(stack.processor_url)) as recorder,
        listening_before(_port(stack.storage_url)) as storage,
        listening_before(stack.mongod.port) as mongodb,
        listening_before(_port(stack.rpc_url)) as node,
    ):
        true_urls = {"MONGODB_URL": stack.mongodb_url, "CHAIN_RPC_URLS": stack.rpc_url}
        relayed = {"MONGODB_URL": f"mongodb://127.0.0.1:{mongodb.port}/"}
        stack.restart("storage", relayed | {"CHAIN_RPC_URLS": f"http://127.0.0.1:{node.port}"})
        stack.restart("processor", {"STORAGE_URL": f"http://127.0.0.1:{storage.port}"})
        processor_url = stack.processor_url
        try:
            stack.processor_url = f"http://127.0.0.1:{recorder.port}"
            api.record(name, [loot.marked(secret)])
            receipt_of(api, name)
            assert secret in api.processor("GET", f"/api/v1/sessions/{name}/content", "replay").content
        finally:
            stack.processor_url = processor_url
            stack.restart("storage", true_urls)
            stack.restart("processor", {"STORAGE_URL": stack.storage_url})
    wanted = {
        "plaintext": secret,
        "envelope": hands.body(name, 0)[-48:],
        "DEK": loot.dek(stack, hands.session(name)),
        "KEK": loot.kek(stack),
        "wrapped key": bytes(hands.session(name)["keys"][0]["wrapped"]),
        "recorder's token": stack.tokens["record"].encode(),
        "processor's token": stack.tokens["processor"].encode(),
        "chain key": bytes.fromhex(stack.anvil.accounts[1][1][2:]),
    }
    heard = [loot.found(wanted, [bytes(relay.heard)]) for relay in (recorder, storage, mongodb, node)]
    assert heard == [
        {"plaintext", "recorder's token"},
        {"envelope", "wrapped key", "processor's token"},
        {"envelope", "wrapped key"},
        set(),
    ]
    assert b"eth_sendRawTransaction" in node.heard
