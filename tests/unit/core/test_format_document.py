"""FORMAT.md says what is so: its example is recomputed, and its program is run. Nothing of `sessions.core` helps here
but in the last tests, which read the example with it.
"""

import hmac
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eth_utils import keccak

import sessions.core
from sessions.core import audit, envelope, key_ring, proof, receipt
from tests.unit.core import reference as r

DOCUMENT = (Path(sessions.core.__file__).parent / "FORMAT.md").read_text()
EXAMPLE = DOCUMENT.partition("## Worked example")[2].partition("## Threats")[0]
PROGRAM = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)[1]

SESSION, KEY, DEK_ID = "demo", bytes(range(32)), bytes(range(0x40, 0x50))
KEK, WRAP_NONCE = bytes(range(0x20, 0x40)), b"\xb0" * 12
PLAINTEXTS = [b"hello, world", b"a" * 100]
ZSTD_FRAME = bytes.fromhex("28b52ffd" + "2064" + "230300" + "61")  # magic, one segment of 100 bytes, RLE block of "a"
CODED = [(0, PLAINTEXTS[0]), (1, ZSTD_FRAME)]
NONCES = [b"\xa0" * 12, b"\xa1" * 12]


def envelope_parts(index):
    codec, coded = CODED[index]
    header = r.header(codec, DEK_ID, NONCES[index], index, len(PLAINTEXTS[index]), SESSION)
    sealed = AESGCM(KEY).encrypt(NONCES[index], coded, header)
    fields = {
        "magic": b"LSE1",
        "codec": r.u(codec, 1),
        "zero": r.u(0, 3),
        "DEK id": DEK_ID,
        "nonce": NONCES[index],
        "index": r.u(index, 8),
        "plaintext length": r.u(len(PLAINTEXTS[index]), 8),
        "session id length": r.u(len(SESSION), 2),
        "session id": SESSION.encode(),
        "ciphertext": sealed[:-16],
        "tag": sealed[-16:],
    }
    assert b"".join(fields.values()) == header + sealed
    return fields


def wrapped_parts():
    sealed = AESGCM(KEK).encrypt(WRAP_NONCE, KEY, b"\2" + SESSION.encode() + DEK_ID)
    fields = {
        "version": b"\2",
        "check value": hmac.digest(KEK, b"lucid/kek-check/v1", "sha256")[:8],
        "nonce": WRAP_NONCE,
        "sealed DEK": sealed[:-16],
        "tag": sealed[-16:],
    }
    assert len(b"".join(fields.values())) == 69
    return fields


def build():
    """The groups of values as they stand in the document, the envelopes, and the receipt."""
    groups = {"keys": {"DEK": KEY, "KEK": KEK}, "wrapped DEK, 69 bytes": wrapped_parts()}
    envelopes, leaves = [], []
    for index in range(2):
        parts = envelope_parts(index)
        data = b"".join(parts.values())
        leaf_input = r.chunk_leaf_input(SESSION, index, len(data), r.sha256(data))
        groups[f"chunk {index}"] = {"coded plaintext": CODED[index][1]}
        groups[f"envelope {index}, {len(data)} bytes"] = parts
        groups[f"leaf {index}"] = {
            "SHA-256(envelope)": r.sha256(data),
            "leaf input": leaf_input,
            "leaf hash": r.leaf(leaf_input),
        }
        envelopes.append(data)
        leaves.append(r.leaf(leaf_input))
    root = r.node(*leaves)
    manifest = {
        "version": 1,
        "session_id": SESSION,
        "chunk_count": 2,
        "missing": [],
        "plaintext_bytes": sum(map(len, PLAINTEXTS)),
        "envelope_bytes": sum(map(len, envelopes)),
        "root": root.hex(),
        "opened_at": "2026-01-31T22:15:00.000Z",
        "sealed_at": "2026-01-31T23:59:59.999Z",
        "sealed_by": "recorder",
        "metadata_sha256": r.sha256(b'{"recorder":"pi-5"}').hex(),
    }
    canonical = r.canonical(manifest)
    others = [r.leaf(b"lucid/session/v1\0" + r.sha256(word)) for word in (b"first", b"third")]
    own = r.leaf(r.batch_leaf_input(canonical))
    tree = r.Tree([others[0], own, others[1]])
    groups["session"] = {"session root": root, "SHA-256(metadata)": bytes.fromhex(manifest["metadata_sha256"])}
    groups["batch"] = {
        "SHA-256(manifest)": r.sha256(canonical),
        "batch leaf input": r.batch_leaf_input(canonical),
        "batch leaf hash": own,
        "batch leaf 0": others[0],
        "batch leaf 2": others[1],
        "node of leaves 0, 1": r.node(others[0], own),
        "batch root": tree.root(3),
        "data of anchor()": keccak(text="anchor(bytes32)")[:4] + tree.root(3),
    }
    value = {
        "version": 1,
        "manifest": manifest,
        "batch": {"root": tree.root(3).hex(), "size": 3, "index": 1, "path": [n.hex() for n in tree.path(1, 3)]},
        "anchor": {
            "state": "confirmed",
            "chain_id": 31337,
            "contract": "0x" + "5f" * 20,
            "publisher": "0x" + "9c" * 20,
            "transaction": "0x" + "1d" * 32,
            "block_number": 1234567,
            "block_hash": "0x" + "b7" * 32,
            "block_timestamp": 1769904060,
        },
    }
    return groups, canonical, envelopes, value


GROUPS, CANONICAL, ENVELOPES, RECEIPT = build()


def render():
    """The example's blocks as they stand in the document."""
    lines = []
    for title, values in GROUPS.items():
        lines += [title, *(f"  {name:<20}{value.hex()}" for name, value in values.items()), ""]
    listing = "```text\n" + "\n".join(lines).rstrip() + "\n```"
    manifest = "The manifest's canonical bytes:\n\n```json\n" + CANONICAL.decode() + "\n```"
    return listing + "\n\n" + manifest, json.dumps(RECEIPT, indent=2)


def test_the_example_is_as_computed():
    for block in render():
        assert block in EXAMPLE


def test_no_other_hex_stands_in_the_example():
    rest = EXAMPLE
    for block in render():
        rest = rest.replace(block, "")
    assert re.findall(r"[0-9a-f]{6,}", rest) == []


def test_the_zstd_frame_of_the_example():
    assert zstandard.ZstdDecompressor().decompress(ZSTD_FRAME) == PLAINTEXTS[1]


@pytest.mark.parametrize(
    "call",
    [
        "anchor(bytes32 root)",
        "anchoredAt(address publisher, bytes32 root)",
        "verify(address publisher, bytes32 root, bytes32 leafHash, uint64 index, uint64 size, bytes32[] path)",
    ],
)
def test_selectors(call):
    signature = re.sub(r" \w+(?=[,)])", "", call).replace(" ", "")
    assert f"`{call}` (selector `{keccak(text=signature)[:4].hex()}`)" in re.sub(r"\s+", " ", DOCUMENT)


def test_the_code_unwraps_the_example():
    wrapped = b"".join(GROUPS["wrapped DEK, 69 bytes"].values())
    wrapping = key_ring.parse_wrapping(wrapped)
    assert wrapping.aad(SESSION, DEK_ID) == b"\2" + b"demo" + DEK_ID
    assert AESGCM(KEK).decrypt(wrapping.nonce, wrapping.sealed, wrapping.aad(SESSION, DEK_ID)) == KEY


@pytest.mark.parametrize("title", ["wrapped DEK", "sealed DEK"])
def test_the_tables_of_keys_add_up(title):
    table = DOCUMENT.partition(f"A **{title}** lies")[2].partition("\n\n")[2].partition("\n\n")[0]
    if title == "wrapped DEK":
        table = DOCUMENT.partition("layout than this:\n\n")[2].partition("\n\n")[0]
    rows = [tuple(map(int, found)) for found in re.findall(r"\| (\d+) \| (\d+) \|", table)]
    assert len(rows) == 5
    for (offset, size), (following, _) in pairwise(rows):
        assert offset + size == following
    assert sum(rows[-1]) == {"wrapped DEK": 69, "sealed DEK": 1169}[title]


def test_the_code_reads_the_example():
    read = receipt.from_json(RECEIPT)
    assert receipt.verify_batch(read).root == GROUPS["batch"]["batch root"]
    assert read.manifest.to_bytes() == CANONICAL
    leaves = [envelope.fingerprint(SESSION, index, data).leaf_hash for index, data in enumerate(ENVELOPES)]
    for index, data in enumerate(ENVELOPES):
        parsed = envelope.parse(data)
        assert parsed.header.session_id == SESSION
        assert AESGCM(KEY).decrypt(parsed.header.nonce, parsed.sealed, parsed.aad) == CODED[index][1]
        value = {
            "version": 1,
            "session_id": SESSION,
            "index": index,
            "envelope_bytes": len(data),
            "envelope_sha256": r.sha256(data).hex(),
            "leaf_hash": leaves[index].hex(),
            "tree_size": 2,
            "root": RECEIPT["manifest"]["root"],
            "path": [leaves[1 - index].hex()],
        }
        proof.from_json(value).verify_in(read.manifest)


AUDIT = DOCUMENT.partition("## Audit event v1")[2].partition("## How to verify by hand")[0]


def test_the_audit_event_of_the_example():
    line = re.search(r"```json\n(.*)\n```", AUDIT)[1].encode()
    assert audit.from_bytes(line).to_bytes() == r.canonical(json.loads(line)) == line
    leaf = r.leaf(r.chunk_leaf_input("lucid-audit-2026-01-31", 0, len(line), r.sha256(line)))
    assert re.findall(r"`([0-9a-f]{64})`", AUDIT) == [leaf.hex()]
    assert audit.session_of("2026-01-31") in AUDIT


def test_the_tables_of_audit_events_have_all_members_and_actions():
    tables = AUDIT.split("|---|---|\n")[1:]
    members, actions = (
        re.findall(r"`([a-z_.0-9]+)`", re.sub(r"\|[^|]*\|$", "", table.split("\n\n")[0], flags=re.MULTILINE))
        for table in tables
    )
    assert members == ["version", *audit.AuditEvent.__dataclass_fields__]
    assert sorted(actions) == sorted(audit.Action)
    assert all(f"`{outcome}`" in tables[0] for outcome in audit.Outcome)
    assert f"at most {audit.MAX_EVENT_BYTES} bytes" in AUDIT


@pytest.fixture
def by_hand(tmp_path):
    """Runs the document's program on a receipt and envelopes, in a Python that sees nothing else."""

    def run(value, envelopes):
        (tmp_path / "verify.py").write_text(PROGRAM)
        (tmp_path / "receipt.json").write_text(json.dumps(value))
        for index, data in envelopes.items():
            (tmp_path / f"{index:012d}.lse").write_bytes(data)
        command = [sys.executable, "-I", "-S", "verify.py", "receipt.json", "."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_program_verifies_the_example(by_hand):
    code, out, err = by_hand(RECEIPT, dict(enumerate(ENVELOPES)))
    assert (code, err) == (0, "")
    assert out == f"root to look for on the chain: {RECEIPT['batch']['root']}\n"


def test_the_program_verifies_a_session_with_gaps_and_an_empty_one(by_hand):
    data = ENVELOPES[1]
    leaves = [
        r.leaf(r.missing_leaf_input(SESSION, 0)),
        r.leaf(r.chunk_leaf_input(SESSION, 1, len(data), r.sha256(data))),
    ]
    for change, envelopes in (
        ({"missing": [[0, 0]], "envelope_bytes": len(data), "root": r.node(*leaves).hex()}, {1: data}),
        ({"chunk_count": 0, "envelope_bytes": 0, "root": r.sha256(b"").hex()}, {}),
    ):
        manifest = RECEIPT["manifest"] | change
        root = r.leaf(r.batch_leaf_input(r.canonical(manifest))).hex()
        batch = {"root": root, "size": 1, "index": 0, "path": []}
        code, out, err = by_hand({"manifest": manifest, "batch": batch}, envelopes)
        assert (code, err) == (0, "")
        assert root in out


@pytest.mark.parametrize("index", [0, 1])
def test_the_program_refuses_a_changed_envelope(by_hand, index):
    data = bytearray(ENVELOPES[index])
    data[-1] ^= 1
    code, out, err = by_hand(RECEIPT, dict(enumerate(ENVELOPES)) | {index: bytes(data)})
    assert (code, out) == (1, "")
    assert "the envelopes are not those of the manifest" in err


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("manifest", {"sealed_at": "2026-01-31T23:59:59.998Z"}, "not in the batch"),
        ("manifest", {"envelope_bytes": 1}, "not those of the manifest"),
        ("batch", {"root": "00" * 32}, "not in the batch"),
        ("batch", {"index": 0}, "not in the batch"),
        ("batch", {"index": 3}, "wrong length"),
        ("batch", {"path": []}, "wrong length"),
        ("batch", {"size": 1, "index": 0}, "wrong length"),
    ],
)
def test_the_program_refuses_a_changed_receipt(by_hand, part, change, message):
    value = RECEIPT | {part: RECEIPT[part] | change}
    code, out, err = by_hand(value, dict(enumerate(ENVELOPES)))
    assert (code, out) == (1, "")
    assert message in err
