"""Hypothesis strategies for everything that `sessions.core` reads and writes."""

from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st

from sessions.core.envelope import Codec, Header
from sessions.core.key_ring import SealedDek, WrappedDek
from sessions.core.manifest import Manifest
from sessions.core.proof import ChunkProof
from sessions.core.receipt import Anchor, AnchorState, Batch, Receipt
from sessions.core.types import MAX_CHUNK_INDEX

# No deadline: one slow example on a busy machine says nothing about the code.
settings.register_profile("lucid", deadline=None)
settings.load_profile("lucid")

_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

session_ids = st.builds(
    str.__add__, st.sampled_from(_ALPHANUMERIC), st.text(st.sampled_from(_ALPHANUMERIC + "._-"), max_size=127)
)
chunk_indexes = st.integers(0, MAX_CHUNK_INDEX)
json_integers = st.integers(0, 2**53 - 1)
hashes = st.binary(min_size=32, max_size=32)
paths = st.lists(hashes, max_size=64).map(tuple)
payload_lists = st.lists(st.binary(max_size=300), max_size=20)
headers = st.builds(
    Header,
    codec=st.sampled_from(Codec),
    dek_id=st.binary(min_size=16, max_size=16),
    nonce=st.binary(min_size=12, max_size=12),
    index=chunk_indexes,
    plaintext_bytes=st.integers(0, 2**64 - 1),
    session_id=session_ids,
)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


timestamps = st.datetimes(timezones=st.just(UTC)).map(_rfc3339)


@st.composite
def missing_ranges(draw, chunk_count: int):
    """Gaps below `chunk_count`: ascending, and apart from each other."""
    ends = sorted(draw(st.lists(st.integers(0, max(chunk_count - 1, 0)), max_size=12, unique=True)))
    gaps, free = [], 0
    for first, last in zip(ends[::2], ends[1::2], strict=False):
        if first >= free:
            gaps.append((first, last))
            free = last + 2
    return tuple(gaps) if chunk_count else ()


@st.composite
def manifests(draw):
    count = draw(st.integers(0, 40) | st.integers(0, MAX_CHUNK_INDEX + 1))
    return Manifest(
        session_id=draw(session_ids),
        chunk_count=count,
        missing=draw(missing_ranges(count)),
        plaintext_bytes=draw(json_integers),
        envelope_bytes=draw(json_integers),
        root=draw(hashes),
        opened_at=draw(timestamps),
        sealed_at=draw(timestamps),
        sealed_by=draw(st.sampled_from(["recorder", "idle"])),
        metadata_sha256=draw(hashes),
    )


batches = st.builds(Batch, root=hashes, size=st.integers(1, 2**53 - 1), index=json_integers, path=paths)
_addresses = st.none() | st.binary(min_size=20, max_size=20)
anchors = st.builds(
    Anchor,
    state=st.sampled_from(AnchorState),
    chain_id=st.none() | json_integers,
    contract=_addresses,
    publisher=_addresses,
    transaction=st.none() | hashes,
    block_number=st.none() | json_integers,
    block_hash=st.none() | hashes,
    block_timestamp=st.none() | json_integers,
)
receipts = st.builds(Receipt, manifest=manifests(), batch=st.none() | batches, anchor=anchors)
chunk_proofs = st.builds(
    ChunkProof,
    session_id=session_ids,
    index=chunk_indexes,
    envelope_bytes=json_integers,
    envelope_sha256=hashes,
    leaf_hash=hashes,
    tree_size=st.integers(1, MAX_CHUNK_INDEX + 1),
    root=hashes,
    path=paths,
)
sealed_deks = st.builds(
    SealedDek,
    st.binary(min_size=8, max_size=8).map(bytes.hex),
    st.binary(min_size=1, max_size=100) | st.just(bytes(4095)),
)
wrapped_deks = st.builds(
    WrappedDek,
    st.binary(min_size=16, max_size=16),
    st.text(st.sampled_from(_ALPHANUMERIC + "._-"), min_size=1, max_size=64),
    st.binary(min_size=1, max_size=100) | st.just(bytes(4095)),
    st.none() | sealed_deks,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
