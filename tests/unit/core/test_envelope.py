import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.envelope import MAX_HEADER_BYTES, MIN_ENVELOPE_BYTES, Codec, Header, fingerprint, parse
from sessions.core.errors import EnvelopeFormatError
from sessions.core.types import MAX_CHUNK_INDEX, DekId
from tests.strategies import headers, session_ids
from tests.unit.core import reference

HEADER = Header(Codec.STORED, DekId(bytes(16)), bytes(12), 7, 5, "session-1")
ENVELOPE = HEADER.to_bytes() + b"hello" + bytes(16)


def test_an_envelope_is_taken_apart():
    envelope = parse(ENVELOPE)
    assert envelope.header == HEADER
    assert envelope.aad == HEADER.to_bytes()
    assert envelope.sealed == b"hello" + bytes(16)
    assert envelope.aad.readonly
    assert envelope.sealed.readonly


@given(headers, st.binary(max_size=50))
def test_header_to_bytes_and_back(header, coded):
    if header.codec is Codec.STORED:
        header = Header(header.codec, header.dek_id, header.nonce, header.index, len(coded), header.session_id)
    data = header.to_bytes() + coded + bytes(16)
    assert parse(data).header == header
    assert parse(bytearray(data)).header.to_bytes() == data[: len(data) - len(coded) - 16]
    assert len(header.to_bytes()) <= MAX_HEADER_BYTES


@given(headers)
def test_a_header_is_written_as_the_format_says(header):
    fields = header.dek_id, header.nonce, header.index, header.plaintext_bytes, header.session_id
    assert header.to_bytes() == reference.header(header.codec, *fields)


@given(st.binary(max_size=300))
def test_other_bytes_are_refused_or_spelled_in_one_way_only(data):
    try:
        envelope = parse(data)
    except EnvelopeFormatError:
        return
    assert envelope.header.to_bytes() + bytes(envelope.sealed) == data


def changed(offset, new):
    return ENVELOPE[:offset] + new + ENVELOPE[offset + len(new) :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "at least"),
        (ENVELOPE[: MIN_ENVELOPE_BYTES - 1], "at least"),
        (changed(0, b"LSE2"), "magic"),
        (changed(4, b"\2"), "codec 2"),
        (changed(5, b"\0\0\1"), "reserved"),
        (changed(36, struct.pack(">Q", MAX_CHUNK_INDEX + 1)), "chunk index"),
        (changed(52, b"\0\0"), "session id"),
        (changed(52, b"\xff\xff"), "ends within"),
        (changed(54, b"\xc3\xa9"), "not text"),
        (changed(54, b"/"), "session id"),
        (ENVELOPE[:-1], "does not fit"),
        (ENVELOPE + b"\0", "does not fit"),
        (HEADER.to_bytes() + bytes(15), "ends within"),
    ],
)
def test_what_is_no_envelope(data, message):
    with pytest.raises(EnvelopeFormatError, match=message):
        parse(data)


def test_the_smallest_envelope():
    data = Header(Codec.STORED, DekId(bytes(16)), bytes(12), 0, 0, "a").to_bytes() + bytes(16)
    assert len(data) == MIN_ENVELOPE_BYTES
    assert parse(data).sealed == bytes(16)


@given(session_ids, st.binary(max_size=100))
def test_a_fingerprint_is_of_the_bytes_whoever_holds_them(session, data):
    wanted = fingerprint(session, 3, data)
    assert fingerprint(session, 3, bytearray(data)) == wanted == fingerprint(session, 3, memoryview(data))
    assert wanted.envelope_bytes == len(data)
    digest = reference.sha256(data)
    assert wanted.envelope_sha256 == digest
    assert wanted.leaf_hash == reference.leaf(reference.chunk_leaf_input(session, 3, len(data), digest))
