"""What lists and statuses show of a seal. It is stored beside the manifest, which may hold 100,000 gaps."""

import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sessions.core import manifest as manifests
from sessions.core.errors import CoreError, ManifestFormatError
from sessions.core.manifest import Manifest
from sessions.core.types import Hash

_MISSING: Final = b'"missing":['
_GAP: Final = re.compile(rb"\[([0-9]+),([0-9]+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealSummary:
    """A manifest's numbers; `chunk_count` counts the missing chunks, too, as in the manifest."""

    chunk_count: int
    missing_chunks: int
    plaintext_bytes: int
    envelope_bytes: int
    sealed_at: str
    root: Hash

    @property
    def stored_chunks(self) -> int:
        """How many chunks the session holds."""
        return self.chunk_count - self.missing_chunks


def summary_of(manifest: Manifest) -> SealSummary:
    """Return the summary of a manifest."""
    return SealSummary(
        chunk_count=manifest.chunk_count,
        missing_chunks=sum(last - first + 1 for first, last in manifest.missing),
        plaintext_bytes=manifest.plaintext_bytes,
        envelope_bytes=manifest.envelope_bytes,
        sealed_at=manifest.sealed_at,
        root=manifest.root,
    )


def read_summary(manifest: bytes) -> SealSummary | None:
    """Return the summary of a manifest's bytes; None when they are not a manifest. Large ones take long."""
    try:
        return summary_of(manifests.from_bytes(manifest))
    except CoreError:
        return None


def first_gaps(manifest: bytes, limit: int) -> tuple[list[list[int]], bool]:
    """Return the first gaps of a manifest and whether it has more, without parsing the rest of it."""
    found = [[first, last] for first, last in islice(_gaps(manifest), limit + 1)]
    return found[:limit], len(found) > limit


def missing_of(manifest: bytes, indexes: Collection[int]) -> set[int]:
    """Return those of some indexes that lie in a gap, reading one gap after the other and keeping none."""
    missing: set[int] = set()
    left = deque(sorted(set(indexes)))
    for first, last in _gaps(manifest):
        while left and left[0] <= last:
            if (index := left.popleft()) >= first:
                missing.add(index)
        if not left:
            break
    return missing


def _gaps(manifest: bytes) -> Iterator[tuple[int, int]]:
    # In canonical JSON a hash and two numbers come before this member, and no other member has brackets.
    begin = manifest.find(_MISSING)
    if begin < 0:
        raise ManifestFormatError("the manifest does not list its gaps")
    return ((int(found[1]), int(found[2])) for found in _GAP.finditer(manifest, begin + len(_MISSING)))
