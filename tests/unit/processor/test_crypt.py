import os
from dataclasses import replace

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sessions.core import envelope
from sessions.core.envelope import Codec, Header
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt
from sessions.processor.keys import Dek
from sessions.runtime.errors import DomainError
from tests import strategies

A = SessionId("a")
DEK = Dek.generate()
_contents = st.binary(max_size=2000) | st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 5000)).map(
    lambda pair: pair[0] * pair[1]
)


@given(strategies.session_ids, strategies.chunk_indexes, _contents, st.sampled_from([1, 3]))
def test_what_is_sealed_is_opened(session: SessionId, index: ChunkIndex, content: bytes, level: int) -> None:
    sealed = crypt.seal(DEK, session, index, content, level)
    assert crypt.open_envelope(DEK, session, index, sealed.envelope) == content
    assert sealed.plaintext_bytes == len(content)
    assert sealed.fingerprint == envelope.fingerprint(session, index, sealed.envelope)
    header = envelope.parse(sealed.envelope).header
    assert (header.session_id, header.index, header.dek_id) == (session, index, DEK.dek_id)
    assert len(sealed.envelope) <= len(content) + envelope.MIN_ENVELOPE_BYTES + len(session) - 1


def test_codecs() -> None:
    for content, codec in ((b"", 0), (b"x", 0), (os.urandom(10_000), 0), (bytes(10_000), 1), (b"ab" * 500, 1)):
        assert envelope.parse(crypt.seal(DEK, A, ChunkIndex(0), content, 3).envelope).header.codec == codec


def test_nonces_differ_and_no_repr_shows_content() -> None:
    sealed = [crypt.seal(DEK, A, ChunkIndex(0), b"x", 3) for _ in range(50)]
    assert len({envelope.parse(one.envelope).header.nonce for one in sealed}) == 50
    assert repr(sealed[0].envelope)[2:-1] not in repr(sealed[0])


def _corrupt(data: bytes, dek: Dek = DEK, session: SessionId = A, index: int = 5) -> DomainError:
    with pytest.raises(DomainError) as caught:
        crypt.open_envelope(dek, session, index, data)
    assert caught.value.code == "envelope-corrupt"
    assert caught.value.members == {"session_id": session, "index": index}
    return caught.value


@pytest.mark.parametrize("content", [b"", b"some content", b"compress" * 40])
def test_any_bit_and_any_cut_is_found(content: bytes) -> None:
    data = crypt.seal(DEK, A, ChunkIndex(5), content, 3).envelope
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        _corrupt(bytes(changed))
    for size in range(len(data)):
        _corrupt(data[:size])
    _corrupt(data + b"\0")


def test_anothers_envelope_is_not_opened() -> None:
    data = crypt.seal(DEK, A, ChunkIndex(5), b"x", 3).envelope
    assert "another chunk's" in _corrupt(data, index=6).detail
    assert "another chunk's" in _corrupt(data, session=SessionId("b")).detail
    assert "another chunk's" in _corrupt(data, dek=Dek.generate()).detail
    assert "tag does not fit" in _corrupt(data, dek=replace(DEK, key=bytes(32))).detail


def _forged(packed: bytes, plaintext_bytes: int) -> bytes:
    """What only a holder of the key could make."""
    nonce = os.urandom(12)
    aad = Header(Codec.ZSTD, DEK.dek_id, nonce, ChunkIndex(5), plaintext_bytes, A).to_bytes()
    return aad + AESGCM(DEK.key).encrypt(nonce, packed, aad)


def test_decompression_is_bounded_by_the_header() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    for plaintext_bytes in (10, 49_999_999, 50_000_001):
        assert "declares another length" in _corrupt(_forged(bomb, plaintext_bytes)).detail
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    assert "declares another length" in _corrupt(_forged(silent, 1000)).detail
    assert crypt.open_envelope(DEK, A, 5, _forged(zstandard.compress(b"x" * 99), 99)) == b"x" * 99


@pytest.mark.parametrize("packed", [b"", b"not zstd", zstandard.compress(bytes(9000))[:-2]])
def test_what_is_not_zstd(packed: bytes) -> None:
    _corrupt(_forged(packed, 9000))
