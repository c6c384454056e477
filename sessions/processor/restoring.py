"""Recovery: the plaintext of a session from its envelopes, its key ring and the recovery key. No service is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sessions.core import envelope as envelopes
from sessions.core.errors import EnvelopeFormatError, VerificationError
from sessions.core.key_ring import KeyRing
from sessions.core.manifest import Manifest
from sessions.core.merkle import Frontier, leaf_hash
from sessions.core.types import ChunkIndex, DekId, Hash
from sessions.processor import crypt
from sessions.processor.keys import Dek
from sessions.processor.recovery import RecoveryKey
from sessions.runtime.errors import DomainError


class EnvelopeSource(Protocol):
    """Where the envelopes of a session are."""

    def indexes(self) -> Sequence[int]:
        """The chunks that there are, ascending."""

    def read(self, index: int) -> bytes | None:
        """The envelope of a chunk; None when it is not there after all."""


class EnvelopeFolder:
    """Envelopes as `lucid-sessions envelopes` writes them: a file each, `000000000042.lse`."""

    def __init__(self, folder: Path) -> None:
        self._paths = {int(path.stem): path for path in folder.glob("*.lse") if path.stem.isdecimal()}

    def indexes(self) -> Sequence[int]:
        """See `EnvelopeSource`."""
        return sorted(self._paths)

    def read(self, index: int) -> bytes | None:
        """See `EnvelopeSource`."""
        return self._paths[index].read_bytes()


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored; `lost` are the first and last index of each gap. `root_checked`: it is what was sealed."""

    chunks: int
    plaintext_bytes: int
    lost: list[list[int]]
    root_checked: bool


class _Deks:
    """The session's keys, opened when first needed."""

    def __init__(self, ring: KeyRing, key: RecoveryKey) -> None:
        self._ring = ring
        self._key = key
        self._open: dict[DekId, Dek] = {}

    def get(self, dek_id: DekId) -> Dek:
        if dek_id not in self._open:
            wrapped = next((one for one in self._ring.keys if one.dek_id == dek_id), None)
            if wrapped is None:
                detail = f"the key ring of session {self._ring.session_id} has no key {dek_id.hex()}"
                raise DomainError("key-unavailable", detail, reason="ring-corrupt")
            self._open[dek_id] = self._key.open(self._ring.session_id, wrapped)
        return self._open[dek_id]


def restore(
    ring: KeyRing,
    key: RecoveryKey,
    source: EnvelopeSource,
    write: Callable[[bytes], object],
    *,
    manifest: Manifest | None = None,
    partial: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Restored:
    """Write the plaintext of a session's chunks in order; one chunk is in memory at a time.

    With `partial`, chunks that are missing or do not open are left out, and told. With a manifest, that all is there as
    it was sealed is checked, too. `progress(chunks_done, chunks_total)`.

    Raises:
        DomainError: `key-unavailable`, `envelope-corrupt` or `chunks-missing`; with `partial` only if nothing opens.
        VerificationError: the envelopes are not those of the manifest, unless `partial`.
        OSError: an envelope cannot be read.
    """
    deks, tree = _Deks(ring, key), Frontier()
    there = frozenset(source.indexes())
    total = manifest.chunk_count if manifest is not None else max(there, default=-1) + 1
    lost: list[list[int]] = []
    count = size = 0
    first_error: DomainError | None = None
    for index in range(total):
        data = source.read(index) if index in there else None
        tree.append(_leaf(ring, index, data))
        plaintext = None
        try:
            if data is None:
                detail = f"chunk {index} of session {ring.session_id} is not there; --partial leaves it out"
                raise DomainError("chunks-missing", detail, missing=[[index, index]])
            plaintext = _open(ring, deks, index, data)
        except DomainError as error:
            if not partial:
                raise
            first_error = first_error or error
            _note(lost, index)
        if plaintext is not None:
            write(plaintext)
            count, size = count + 1, size + len(plaintext)
        if progress is not None:
            progress(index + 1, total)
    if first_error is not None and count == 0:
        raise first_error
    root_checked = manifest is not None and tree.root() == manifest.root and max(there, default=-1) < total
    if manifest is not None and not root_checked and not partial:
        raise VerificationError(
            "the envelopes are not those that were sealed: there are more, or they lead to another root"
        )
    return Restored(count, size, lost, root_checked)


def _open(ring: KeyRing, deks: _Deks, index: int, data: bytes) -> bytes:
    try:
        dek_id = envelopes.parse(data).header.dek_id
    except EnvelopeFormatError as error:
        detail = f"chunk {index} of session {ring.session_id} is not an envelope: {error}"
        raise DomainError("envelope-corrupt", detail) from None
    return crypt.open_envelope(deks.get(dek_id), ring.session_id, index, data)


def _leaf(ring: KeyRing, index: int, data: bytes | None) -> Hash:
    if data is None:
        return leaf_hash(envelopes.missing_leaf_input(ring.session_id, index))
    return envelopes.fingerprint(ring.session_id, ChunkIndex(index), data).leaf_hash


def _note(lost: list[list[int]], index: int) -> None:
    if lost and lost[-1][1] == index - 1:
        lost[-1][1] = index
    else:
        lost.append([index, index])
