"""Every parser that reads bytes which others wrote, as one function that takes bytes.

Each gives what came out of it, or raises one of its documented errors; all else is a finding. What parses is written
again, and has to be what was read.
"""

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers

from sessions.core import audit, envelope, frames, key_ring, manifest, proof, receipt
from sessions.core.errors import (
    AuditFormatError,
    EnvelopeFormatError,
    FrameFormatError,
    KeyRingFormatError,
    ManifestFormatError,
    ProofFormatError,
    ReceiptFormatError,
    VerificationError,
)
from sessions.processor import key_files, recovery
from sessions.processor.content import parse_range
from sessions.runtime import digest, tokens
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError
from sessions.storage import key_routes, retention_routes, routes, scrub_routes
from tests.unit.storage.chunks import event

VECTORS = Path(__file__).parents[1] / "vectors"
_RECORDING_BYTES = 1000
_SECRET_PART = re.compile(rb"[A-Za-z0-9+/=_-]{16,}")


@dataclass(frozen=True)
class Parser:
    """`parse` is given a folder of its own; `errors` are those that the parser documents, `codes` of DomainErrors."""

    name: str
    seeds: tuple[bytes, ...]
    parse: Callable[[bytes, Path], Any]
    errors: tuple[type[Exception], ...]
    codes: tuple[str, ...] = ()

    def run(self, data: bytes, folder: Path) -> bool:
        """Whether it parses. Raises what nobody documented, and AssertionError for what comes out wrong."""
        try:
            self.parse(data, folder)
        except self.errors as error:
            found = error
        else:
            return True
        assert not isinstance(found, DomainError) or found.code in self.codes, found
        assert len(str(found)) < 1000, "an error that is as long as its input"
        return False


def _vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _envelope(data: bytes, _: Path) -> None:
    found = envelope.parse(data)
    assert found.header.to_bytes() == found.aad
    assert bytes(found.aad) + bytes(found.sealed) == data
    assert envelope.read_header(data) == found.header


def _frames(data: bytes, _: Path) -> None:
    assert frames.join(frames.split(data)) == data


def _key_ring(data: bytes, _: Path) -> None:
    ring = key_ring.from_bytes(data)
    assert key_ring.from_json(key_ring.to_json(ring)) == ring


def _wrapped(data: bytes, _: Path) -> None:
    assert key_ring.parse_wrapping(data).to_bytes() == data


def _sealed(data: bytes, _: Path) -> None:
    assert key_ring.sealed_to_bytes(key_ring.parse_sealed(data)) == data


def _manifest(data: bytes, _: Path) -> None:
    assert manifest.from_bytes(data).to_bytes() == data


def _audit_event(data: bytes, _: Path) -> None:
    assert audit.from_bytes(data).to_bytes() == data


def _receipt(data: bytes, _: Path) -> None:
    found = receipt.from_bytes(data)
    assert receipt.from_json(found.to_json()) == found
    assert found.to_json() == json.loads(data)
    with suppress(VerificationError):
        receipt.verify_batch(found)


def _proof(data: bytes, _: Path) -> None:
    found = proof.from_bytes(data)
    assert proof.from_json(found.to_json()) == found
    assert found.to_json() == json.loads(data)
    with suppress(VerificationError):
        found.verify()


def _file(data: bytes, folder: Path) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


def _tokens(data: bytes, folder: Path) -> None:
    found = tokens.load_tokens(_file(data, folder))
    lines = [
        f"{who.name} roles={','.join(sorted(who.roles))} sha256={sha256.hex()}"
        + (f" sessions={who.sessions}" if who.sessions else "")
        + (f" expires={who.expires.isoformat().replace('+00:00', 'Z')}" if who.expires else "")
        for sha256, who in found
    ]
    assert tokens.load_tokens(_file("\n".join(lines).encode(), folder)) == found
    assert all(sha256.hex() in data.decode() for sha256, _ in found)


def _keks(data: bytes, folder: Path) -> None:
    try:
        found = key_files.load_keks(_file(data, folder))
    except ConfigurationError as error:
        told = [part for part in _SECRET_PART.findall(data.partition(b":")[2]) if part.decode() in str(error)]
        if told:
            raise AssertionError("an error that tells the key") from error
        raise
    lines = dict(
        line.strip().split(":") for line in data.decode().splitlines() if ":" in line and line.strip()[0] != "#"
    )
    assert list(found.kek_ids) == list(lines)
    assert all(len(base64.b64decode(key)) == key_ring.KEY_BYTES for key in lines.values())


def _recovery_public(data: bytes, _: Path) -> None:
    recovery.Recipient(data.decode("latin-1"))


def _recovery_private(data: bytes, _: Path) -> None:
    recovery.RecoveryKey(data.decode("latin-1"))


def _range(data: bytes, _: Path) -> None:
    span = parse_range(data.decode("latin-1"), _RECORDING_BYTES)
    if span is not None:
        assert 0 <= span.start < span.end <= span.total == _RECORDING_BYTES


def _digest(data: bytes, _: Path) -> None:
    lines = [(b"content-digest", line) for line in data.split(b"\n")]
    digest.check(Headers(raw=lines), b"lucid")


def _cursor(decode: Callable[[str], Any], encode: Callable[[Any], str]) -> Callable[[bytes, Path], None]:
    def parse(data: bytes, _: Path) -> None:
        place = decode(data.decode("latin-1"))
        assert decode(encode(place)) == place

    return parse


def _sessions_cursor(place: Any) -> str:
    opened_at, last = place
    return routes.encode_cursor(opened_at.isoformat(), last)


def _base64(*values: Any) -> tuple[bytes, ...]:
    return tuple(base64.urlsafe_b64encode(_json(value)) for value in values)


def _all() -> tuple[Parser, ...]:
    rings = _vectors("key_rings")
    ring = rings["ring"]
    wrapped = [base64.b64decode(key["wrapped"]) for key in ring["keys"]]
    sealed = [base64.b64decode(key["recovery"]["sealed"]) for key in ring["keys"] if key["recovery"]]
    hash_a, hash_b = "9f" * 32, "60" * 32
    token_lines = (
        f"recorder-1 roles=record sha256={hash_a}",
        (
            f"# a comment\n\ndesk-17 roles=record,replay sha256={hash_b} sessions=desk-17- expires=2027-01-31T00:00:00Z\n"
            f"old roles=admin sha256={hash_a} expires=2027-01-31T00:00:00.123456+05:30"
        ),
    )
    kek = base64.b64encode(bytes(range(32))).decode()
    times = ("2026-01-31T00:00:00.000Z", "2026-01-31T23:59:59.999+05:30")
    invalid = (DomainError,), ("invalid-request",)
    return (
        Parser(
            "envelope",
            tuple(bytes.fromhex(one["envelope"]) for one in _vectors("envelopes")),
            _envelope,
            (EnvelopeFormatError,),
        ),
        Parser(
            "frames",
            tuple(bytes.fromhex(one["frames"]) for one in _vectors("frames")),
            _frames,
            (FrameFormatError,),
        ),
        Parser("key-ring", (_json(ring), _json(ring | {"keys": []})), _key_ring, (KeyRingFormatError,)),
        Parser("wrapped-key", tuple(wrapped), _wrapped, (KeyRingFormatError,)),
        Parser("sealed-key", tuple(sealed), _sealed, (KeyRingFormatError,)),
        Parser("tokens", tuple(line.encode() for line in token_lines), _tokens, (ConfigurationError,)),
        Parser(
            "kek",
            (f"k-1:{kek}".encode(), f"# active first\nnew:{kek}\n\nold:{kek}\n".encode()),
            _keks,
            (ConfigurationError,),
        ),
        Parser("receipt", tuple(map(_json, _vectors("receipts"))), _receipt, (ReceiptFormatError,)),
        Parser("chunk-proof", tuple(map(_json, _vectors("chunk_proofs"))), _proof, (ProofFormatError,)),
        Parser(
            "manifest",
            tuple(one["canonical"].encode() for one in _vectors("manifests")),
            _manifest,
            (ManifestFormatError,),
        ),
        Parser(
            "audit-event",
            (event().to_bytes(), event(principal=None, session_id=None, code="forbidden", count=9).to_bytes()),
            _audit_event,
            (AuditFormatError,),
        ),
        Parser("recovery-public", (rings["public_key"].encode(),), _recovery_public, (recovery.RecoveryKeyError,)),
        Parser("recovery-private", (rings["private_key"].encode(),), _recovery_private, (recovery.RecoveryKeyError,)),
        Parser("range", (b"bytes=0-9", b"bytes=-5", b"bytes=990-"), _range, (DomainError,), ("range-not-satisfiable",)),
        Parser(
            "content-digest",
            (
                digest.content_digest(b"lucid").encode(),
                b"md5=:AAAA:, " + digest.content_digest(b"lucid").encode(),
                b"md5=:AA==:",
                b"md5=:AA==:\n" + digest.content_digest(b"lucid").encode(),
            ),
            _digest,
            (DomainError,),
            ("bad-content-digest", "digest-mismatch"),
        ),
        Parser(
            "sessions-cursor",
            _base64(*([time, "demo"] for time in times)),
            _cursor(routes.decode_cursor, _sessions_cursor),
            *invalid,
        ),
        Parser(
            "due-cursor",
            _base64([None, times[0], "demo"], [36_500, times[1], "demo"]),
            _cursor(retention_routes.decode_cursor, retention_routes.encode_cursor),
            *invalid,
        ),
        Parser(
            "keys-cursor",
            _base64(*([kind.value, value, "demo"] for kind in key_routes.Kind for value in ("k", None))),
            _cursor(key_routes.decode_cursor, key_routes.encode_cursor),
            *invalid,
        ),
        Parser(
            "scrub-cursor",
            _base64(["demo", 0], ["demo", 2**53 - 1]),
            _cursor(scrub_routes.decode_cursor, scrub_routes.encode_cursor),
            *invalid,
        ),
    )


PARSERS = {parser.name: parser for parser in _all()}
