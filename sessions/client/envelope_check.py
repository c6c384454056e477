"""Checks a folder of envelopes against a manifest: no key, no service. One envelope is in memory at a time."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sessions.core import envelope as envelopes
from sessions.core.envelope import MAX_HEADER_BYTES, TAG_BYTES, Fingerprint, Header
from sessions.core.errors import EnvelopeFormatError, VerificationError
from sessions.core.manifest import Manifest
from sessions.core.merkle import Frontier, leaf_hash
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT

LEAF_HASHES_FILE: Final = "leaf-hashes.txt"
"""One `INDEX HEX` a line; no envelope."""
MAX_MISSING_LEAVES: Final = 50_000_000
"""A manifest can claim more gaps in a line than anybody would hash."""
_MAX_ENVELOPE_BYTES: Final = CHUNK_MAX_BYTES_LIMIT + MAX_HEADER_BYTES + TAG_BYTES


def check_envelopes(manifest: Manifest, folder: Path) -> int:
    """Check that a folder holds exactly the envelopes that a manifest stands for; how many there are.

    Which chunk a file is stands in its header, not in its name.

    Raises:
        VerificationError: one is missing, there twice, foreign or altered; the first such is named.
        OSError: the folder or a file cannot be read.
    """
    leaves: dict[int, bytes] = {}
    envelope_bytes = plaintext_bytes = 0
    for path in _files(folder):
        header, marks = _read(manifest, path)
        if header.index in leaves:
            raise VerificationError(f"chunk {header.index} is there twice: {path.name} and {_first(folder, header)}")
        leaves[header.index] = marks.leaf_hash
        envelope_bytes += marks.envelope_bytes
        plaintext_bytes += header.plaintext_bytes
    _check_complete(manifest, leaves)
    if _root(manifest, leaves) != manifest.root:
        raise VerificationError(_what_is_altered(manifest, folder, leaves))
    if (envelope_bytes, plaintext_bytes) != (manifest.envelope_bytes, manifest.plaintext_bytes):
        raise VerificationError(
            f"the envelopes have {envelope_bytes} bytes for {plaintext_bytes} bytes of plaintext,"
            f" the manifest says {manifest.envelope_bytes} for {manifest.plaintext_bytes}"
        )
    return len(leaves)


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_file() and entry.name != LEAF_HASHES_FILE)


def _read(manifest: Manifest, path: Path) -> tuple[Header, Fingerprint]:
    if path.stat().st_size > _MAX_ENVELOPE_BYTES:
        raise VerificationError(f"{path.name} is foreign: it is larger than any envelope")
    data = path.read_bytes()
    try:
        header = envelopes.parse(data).header
    except EnvelopeFormatError as error:
        raise VerificationError(f"{path.name} is foreign or altered: {error}") from error
    if header.session_id != manifest.session_id:
        raise VerificationError(f"{path.name} is foreign: it is chunk {header.index} of session {header.session_id}")
    if header.index >= manifest.chunk_count:
        raise VerificationError(
            f"{path.name} is foreign: chunk {header.index} of a session of {manifest.chunk_count} chunks"
        )
    return header, envelopes.fingerprint(header.session_id, header.index, data)


def _first(folder: Path, header: Header) -> str:
    for path in _files(folder):
        if envelopes.parse(path.read_bytes()).header.index == header.index:
            return path.name
    return "a file that is gone now"


def _check_complete(manifest: Manifest, leaves: dict[int, bytes]) -> None:
    gap_leaves = sum(last - first + 1 for first, last in manifest.missing)
    if gap_leaves > MAX_MISSING_LEAVES:
        raise VerificationError(f"the manifest claims {gap_leaves} missing chunks, too many to check")
    expected = at = 0
    for first, last in (*manifest.missing, (manifest.chunk_count, manifest.chunk_count)):
        for index in range(at, first):
            if index not in leaves:
                raise VerificationError(f"chunk {index} is missing")
            expected += 1
        at = last + 1
    if len(leaves) != expected:
        surplus = min(index for index in leaves if any(first <= index <= last for first, last in manifest.missing))
        raise VerificationError(f"chunk {surplus} is foreign: the session was sealed without it")


def _root(manifest: Manifest, leaves: dict[int, bytes]) -> bytes:
    tree = Frontier()
    for index in range(manifest.chunk_count):
        leaf = leaves.get(index)
        tree.append(leaf or leaf_hash(envelopes.missing_leaf_input(manifest.session_id, index)))
    return tree.root()


def _what_is_altered(manifest: Manifest, folder: Path, leaves: dict[int, bytes]) -> str:
    """Which chunk is not the recorded one, by a list of leaf hashes if there is one that has the manifest's root."""
    try:
        listed = dict(_listed(folder / LEAF_HASHES_FILE))
    except (OSError, ValueError):
        listed = {}
    if listed.keys() == leaves.keys() and _root(manifest, listed) == manifest.root:
        altered = min(index for index in leaves if leaves[index] != listed[index])
        return f"chunk {altered} is altered"
    return f"a chunk is altered: the envelopes lead to another root (no sound {LEAF_HASHES_FILE} tells which one)"


def _listed(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open(encoding="ascii") as lines:
        for line in lines:
            index, _, leaf = line.strip().partition(" ")
            yield int(index), bytes.fromhex(leaf)
