"""The contract in bytes, against the compiled artefact and against the library that the chain's users use."""

import hashlib

import pytest
from eth_abi import encode
from web3 import Web3

from sessions.core import anchor_contract as contract
from sessions.core.errors import FormatError
from sessions.storage.contract import artefact

ROOT, PUBLISHER = bytes(range(32)), bytes(range(100, 120))


@pytest.mark.parametrize(
    ("selector", "signature"),
    [
        (contract.ANCHOR_SELECTOR, "anchor(bytes32)"),
        (contract.ANCHORED_AT_SELECTOR, "anchoredAt(address,bytes32)"),
        (contract.VERIFY_SELECTOR, "verify(address,bytes32,bytes32,uint64,uint64,bytes32[])"),
    ],
)
def test_selectors_are_those_of_the_artefact_and_of_keccak(selector: bytes, signature: str) -> None:
    assert selector.hex() == artefact()["methodIdentifiers"][signature]
    assert selector == Web3.keccak(text=signature)[:4]


def test_event_topic_is_that_of_the_abi() -> None:
    (event,) = [item for item in artefact()["abi"] if item["type"] == "event"]
    signature = f"{event['name']}({','.join(item['type'] for item in event['inputs'])})"
    assert bytes(Web3.keccak(text=signature)) == contract.ANCHORED_TOPIC
    assert [item["indexed"] for item in event["inputs"]] == [True, True, False]


def test_runtime_code_hash_is_that_of_the_artefact() -> None:
    code = bytes.fromhex(artefact()["deployedBytecode"][2:])
    assert hashlib.sha256(code).digest() == contract.RUNTIME_CODE_SHA256
    assert contract.is_genuine(code)
    assert not contract.is_genuine(b"")
    assert not contract.is_genuine(code + b"\0")


def test_calls_are_encoded_as_the_library_does_it() -> None:
    assert contract.encode_anchor_call(ROOT) == contract.ANCHOR_SELECTOR + encode(["bytes32"], [ROOT])
    assert contract.encode_anchored_at_call(PUBLISHER, ROOT) == contract.ANCHORED_AT_SELECTOR + encode(
        ["address", "bytes32"], ["0x" + PUBLISHER.hex(), ROOT]
    )


def test_anchor_call_round_trip() -> None:
    assert contract.decode_anchor_call(contract.encode_anchor_call(ROOT)) == ROOT


@pytest.mark.parametrize(
    "data", [b"", contract.ANCHOR_SELECTOR, contract.ANCHOR_SELECTOR + ROOT + b"\0", contract.VERIFY_SELECTOR + ROOT]
)
def test_other_call_data_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="does not call anchor"):
        contract.decode_anchor_call(data)


def test_lengths_are_checked() -> None:
    with pytest.raises(FormatError, match="root has 32 bytes, this has 31"):
        contract.encode_anchor_call(ROOT[:31])
    with pytest.raises(FormatError, match="root"):
        contract.encode_anchored_at_call(PUBLISHER, ROOT + b"\0")
    with pytest.raises(FormatError, match="address has 20 bytes, this has 19"):
        contract.encode_anchored_at_call(PUBLISHER[1:], ROOT)


@pytest.mark.parametrize("value", [0, 1, 1_700_000_000, 2**64 - 1])
def test_uint64_round_trip(value: int) -> None:
    assert contract.decode_uint64(encode(["uint64"], [value])) == value


@pytest.mark.parametrize("answer", [b"", bytes(31), bytes(33), (2**64).to_bytes(32, "big")])
def test_what_is_no_uint64_is_refused(answer: bytes) -> None:
    with pytest.raises(FormatError, match="not a uint64"):
        contract.decode_uint64(answer)
