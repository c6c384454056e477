"""What the services answer, as frozen records, read strictly from JSON.

Members that are not known yet are passed over, so that a newer service does not break an older client; those that are
known must be there and be of the right type. Formats that outlive the service (manifest, receipt, chunk proof) are
read by `sessions.core`, to the letter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from sessions.core import strict
from sessions.core.envelope import chunk_leaf_input
from sessions.core.errors import FormatError
from sessions.core.merkle import leaf_hash
from sessions.core.receipt import Anchor, AnchorState
from sessions.core.types import HASH_BYTES, MAX_CHUNK_INDEX, Hash, SessionId, session_id

Status: TypeAlias = Literal["open", "sealing", "sealed", "shredded"]
_STATUSES: Final = ("open", "sealing", "sealed", "shredded")
_LATER: Final = ("shredded_at", "shred_reason", "shredded_by", "retained_until", "delete_at")
_MAX_ITEMS: Final = 100_000


class AnswerFormatError(FormatError):
    """JSON that is not what the service's contract says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkAck:
    """A chunk is kept. `new` is False when the same content was there already; `durability`: stored or spooled."""

    session_id: SessionId
    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: Hash
    leaf_hash: Hash
    durability: str
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """One session as storage lists it. `chunk_count` counts stored chunks; times are RFC 3339, UTC.

    A list does not count what an open session has so far: that is None.
    """

    session_id: SessionId
    status: Status
    chunk_count: int | None
    plaintext_bytes: int | None
    envelope_bytes: int | None
    opened_at: str
    sealed_at: str | None
    root: Hash | None
    anchor: Anchor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus(SessionSummary):
    """A session, and where to resume: `next_index` is the highest stored index + 1, `missing` the gaps below it.

    With `missing_truncated` there are more gaps after the last one listed.
    """

    chunk_count: int
    plaintext_bytes: int
    envelope_bytes: int
    next_index: int
    missing: tuple[tuple[int, int], ...]
    missing_truncated: bool
    shredded_at: str | None = None
    shred_reason: str | None = None
    shredded_by: str | None = None
    retained_until: str | None = None
    delete_at: str | None = None
    unheard: tuple[str, ...] = ()
    """Processors that the seal did not wait for, since they were lost: it may lack chunks that these hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """One stored chunk: sizes in bytes, and the hashes that tie it into the tree."""

    index: int
    plaintext_bytes: int
    envelope_bytes: int
    envelope_sha256: Hash
    leaf_hash: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRecord:
    """One batch and its anchor. `sessions` (ids, at most 1000) is filled when one anchor is asked for by its root."""

    root: Hash
    size: int
    sequence: int
    created_at: str
    anchor: Anchor
    gas_used: int | None
    sessions: tuple[str, ...]


def known_members(what: str, value: object, members: Iterable[str]) -> strict.Reader:
    """A reader that lets unknown members pass."""
    names = list(members)
    known = {name: value[name] for name in names if name in value} if isinstance(value, dict) else value
    return strict.Reader(what, known, names, AnswerFormatError)


def hash_of(read: strict.Reader, name: str) -> Hash:
    """Read a hash."""
    return Hash(read.hex(name, HASH_BYTES))


def chunk_ack(value: object, *, new: bool) -> ChunkAck:
    """Read the answer to a chunk, and check that the leaf hash is that of the envelope's hash.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("chunk answer", value, (name for name in ChunkAck.__dataclass_fields__ if name != "new"))
    ack = ChunkAck(
        session_id=session_id(read.text("session_id")),
        index=read.integer("index", 0, MAX_CHUNK_INDEX),
        plaintext_bytes=read.integer("plaintext_bytes"),
        envelope_bytes=read.integer("envelope_bytes"),
        envelope_sha256=hash_of(read, "envelope_sha256"),
        leaf_hash=hash_of(read, "leaf_hash"),
        durability=read.one_of("durability", ("stored", "spooled")),
        new=new,
    )
    leaf = leaf_hash(chunk_leaf_input(ack.session_id, ack.index, ack.envelope_bytes, ack.envelope_sha256))
    if leaf != ack.leaf_hash:
        raise AnswerFormatError("leaf_hash of the chunk answer is not the hash of the leaf that it describes")
    return ack


def _summary(read: strict.Reader) -> dict[str, Any]:
    return {
        "session_id": session_id(read.text("session_id")),
        "status": cast("Status", read.one_of("status", _STATUSES)),
        "chunk_count": read.optional("chunk_count", read.integer),
        "plaintext_bytes": read.optional("plaintext_bytes", read.integer),
        "envelope_bytes": read.optional("envelope_bytes", read.integer),
        "opened_at": read.text("opened_at"),
        "sealed_at": read.optional("sealed_at", read.text),
        "root": read.optional("root", lambda name: hash_of(read, name)),
        "anchor": read.optional("anchor", lambda name: read_anchor(read.value(name))),
    }


def session_summary(value: object) -> SessionSummary:
    """Read one session of a list.

    Raises:
        FormatError: it is not such an answer.
    """
    return SessionSummary(**_summary(known_members("session", value, SessionSummary.__dataclass_fields__)))


def session_status(value: object) -> SessionStatus:
    """Read the status of a session.

    Raises:
        FormatError: it is not such an answer.
    """
    later = ("missing_truncated", "unheard", *_LATER)  # an older service does not say these
    read = known_members("session", value, (name for name in SessionStatus.__dataclass_fields__ if name not in later))
    gaps = []
    for gap in read.items("missing", _MAX_ITEMS):
        if not (isinstance(gap, list) and [type(end) for end in gap] == [int, int]):
            raise read.fail("missing", "a list of [first, last]")
        gaps.append((gap[0], gap[1]))
    truncated = isinstance(value, dict) and value.get("missing_truncated") is True
    said: dict[str, Any] = {}
    if isinstance(value, dict):
        said = {name: text for name in _LATER if isinstance(text := value.get(name), str)}
    counted = {name: read.integer(name) for name in ("chunk_count", "plaintext_bytes", "envelope_bytes")}
    return SessionStatus(
        **{**_summary(read), **counted},
        next_index=read.integer("next_index"),
        missing=tuple(gaps),
        missing_truncated=truncated,
        unheard=unheard(read, value),
        **said,
    )


def unheard(read: strict.Reader, value: object) -> tuple[str, ...]:
    """Read a member that an older service does not say."""
    return strings(read, "unheard", value.get("unheard", []) if isinstance(value, dict) else [])


def strings(read: strict.Reader, name: str, value: object, should: str = "a list of strings") -> tuple[str, ...]:
    """Read a list of strings.

    Raises:
        FormatError: it is no such list.
    """
    if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise read.fail(name, should)
    return tuple(value)


def chunk_page(value: object) -> tuple[list[ChunkRecord], int | None]:
    """Read one page of a session's chunks, and where the next one starts.

    Raises:
        FormatError: it is not such an answer.
    """
    page = known_members("list of chunks", value, ("chunks", "next_start"))
    records = []
    for item in page.items("chunks", _MAX_ITEMS):
        read = known_members("chunk", item, ChunkRecord.__dataclass_fields__)
        records.append(
            ChunkRecord(
                index=read.integer("index", 0, MAX_CHUNK_INDEX),
                plaintext_bytes=read.integer("plaintext_bytes"),
                envelope_bytes=read.integer("envelope_bytes"),
                envelope_sha256=hash_of(read, "envelope_sha256"),
                leaf_hash=hash_of(read, "leaf_hash"),
            )
        )
    return records, page.optional("next_start", page.integer)


def session_page(value: object) -> tuple[list[SessionSummary], str | None]:
    """Read one page of sessions, and the cursor of the next one.

    Raises:
        FormatError: it is not such an answer.
    """
    page = known_members("list of sessions", value, ("sessions", "next_cursor"))
    items = [session_summary(item) for item in page.items("sessions", _MAX_ITEMS)]
    return items, page.optional("next_cursor", page.text)


def anchor_page(value: object) -> tuple[list[AnchorRecord], str | None]:
    """Read one page of anchors, and the cursor of the next one.

    Raises:
        FormatError: it is not such an answer.
    """
    page = known_members("list of anchors", value, ("anchors", "next_cursor"))
    items = [anchor_record(item) for item in page.items("anchors", _MAX_ITEMS)]
    return items, page.optional("next_cursor", page.text)


def anchor_record(value: object) -> AnchorRecord:
    """Read one anchor.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("anchor", value, (name for name in AnchorRecord.__dataclass_fields__ if name != "sessions"))
    ids = value.get("sessions", []) if isinstance(value, dict) else []
    return AnchorRecord(
        root=hash_of(read, "root"),
        size=read.integer("size", 1),
        sequence=read.integer("sequence"),
        created_at=read.text("created_at"),
        anchor=read_anchor(read.value("anchor")),
        gas_used=read.optional("gas_used", read.integer),
        sessions=strings(read, "sessions", ids, "a list of session ids"),
    )


def read_anchor(value: object) -> Anchor:
    """Read a transaction that anchors; members that are not known yet are passed over."""
    read = known_members("anchor", value, Anchor.__dataclass_fields__)

    def chain_hex(size: int) -> Any:
        return lambda name: read.hex(name, size, "0x")

    return Anchor(
        state=AnchorState(read.one_of("state", list(AnchorState))),
        chain_id=read.optional("chain_id", read.integer),
        contract=read.optional("contract", chain_hex(20)),
        publisher=read.optional("publisher", chain_hex(20)),
        transaction=read.optional("transaction", chain_hex(HASH_BYTES)),
        block_number=read.optional("block_number", read.integer),
        block_hash=read.optional("block_hash", chain_hex(HASH_BYTES)),
        block_timestamp=read.optional("block_timestamp", read.integer),
    )
