"""A session out of an export of our collections, as `mongodump` or `mongoexport` make it. No server, no key.

A folder holds `sessions`, `chunks` and `bodies`, each as `.bson` (mongodump) or `.json` (mongoexport, a document a
line, or `--jsonArray`), or either with `.gz` behind it. Documents may come in any order. Of a session's bodies only the
places are kept in memory.
"""

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

import bson
from bson import json_util
from bson.errors import BSONError

from sessions.core.errors import FormatError
from sessions.core.key_ring import KeyRing
from sessions.core.types import SessionId
from sessions.storage.key_documents import key_of

COLLECTIONS: Final = ("sessions", "chunks", "bodies")
_SUFFIXES: Final = (".bson", ".json", ".bson.gz", ".json.gz")
_LENGTH_BYTES: Final = 4
_MIN_DOCUMENT_BYTES: Final = 5
_MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024 + 16 * 1024

Document = dict[str, Any]
Progress = Callable[[int], None]


class DumpError(FormatError):
    """Files that are no such export, or one without what is looked for."""


class _Collection:
    """The documents of one file, one after the other, and again by their place."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._read = self._read_bson if ".bson" in path.suffixes else self._read_json

    def scan(self) -> Iterator[tuple[int, Document]]:
        """All documents, with their places."""
        self._file.seek(0)
        while True:
            place = self._file.tell()
            document = self._checked(place)
            if document is None:
                return
            yield place, document

    def at(self, place: int) -> Document:
        """The document at a place."""
        self._file.seek(place)
        document = self._checked(place)
        if document is None:
            raise DumpError(f"{self.path} changed while it was read")
        return document

    def _checked(self, place: int) -> Document | None:
        try:
            return self._read()
        except (BSONError, ValueError, TypeError, KeyError, EOFError, OSError, RecursionError) as error:
            reason = str(error)[:200] or type(error).__name__
            raise DumpError(f"{self.path} is not an export of MongoDB, at byte {place}: {reason}") from error

    def _read_bson(self) -> Document | None:
        head = self._file.read(_LENGTH_BYTES)
        if not head:
            return None
        size = int.from_bytes(head, "little")
        if not _MIN_DOCUMENT_BYTES <= size <= _MAX_DOCUMENT_BYTES:
            raise ValueError("no document has such a length")
        data = head + self._file.read(size - _LENGTH_BYTES)
        if len(data) != size:
            raise ValueError("it ends within a document")
        return bson.decode(data)

    def _read_json(self) -> Document | None:
        while line := self._file.readline():
            # --jsonArray puts brackets around all, and a comma behind each; the documents stay on a line each.
            text = line.strip().removeprefix(b"[").removesuffix(b"]").strip(b", \t")
            if text:
                document = json_util.loads(text)
                if not isinstance(document, dict):
                    raise TypeError("a line holds one document: export without --pretty")
                return document
        return None


class Dump:
    """An export in a folder."""

    def __init__(self, folder: Path) -> None:
        """Open the files of a folder, or of the one folder in it that has them.

        Raises:
            DumpError: there are none, or several.
        """
        self._stack = ExitStack()
        paths = {name: _find(folder, name) for name in COLLECTIONS}
        try:
            self._files = {name: _Collection(path, self._open(path)) for name, path in paths.items()}
        except OSError as error:
            self._stack.close()
            raise DumpError(f"cannot read {error.filename}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _open(self, path: Path) -> BinaryIO:
        file = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 - the stack closes it
        return cast("BinaryIO", self._stack.enter_context(file))

    def session(self, session_id: SessionId) -> "DumpedSession":
        """What the export has of a session.

        Raises:
            DumpError: it has none such, or one that was shredded.
        """
        for _, document in self._files["sessions"].scan():
            if document.get("_id") == session_id:
                break
        else:
            raise DumpError(f"the export has no session {session_id}")
        if document.get("status") == "shredded":
            raise DumpError(f"session {session_id} was shredded before the export was made: its keys are gone")
        try:
            ring = KeyRing(session_id, tuple(map(key_of, document["keys"])))
            manifest = document.get("manifest")
            if not isinstance(manifest, bytes | None):
                raise TypeError("manifest")
            chunks = self._mine(session_id, "chunks")
            digests = {int(one["_id"]["i"]): bytes(one["envelope_sha256"]) for _, one in chunks}
            places: dict[int, dict[int, int]] = {}
            for place, one in self._mine(session_id, "bodies"):
                index = int(one["_id"]["i"])
                # A body is named by the start of its hash; another's is that of who came second, and was to be deleted.
                if index in digests and digests[index].startswith(bytes(one["_id"]["e"])):
                    places.setdefault(index, {})[int(one["_id"]["p"])] = place
        except DumpError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DumpError(f"the export's documents of session {session_id} are not ours: {error!r}") from error
        return DumpedSession(ring, manifest, digests, places, self._files["bodies"])

    def _mine(self, session_id: SessionId, collection: str) -> Iterator[tuple[int, Document]]:
        for place, document in self._files[collection].scan():
            if document["_id"]["s"] == session_id:
                yield place, document


class DumpedSession:
    """A session in an export: its key ring, the canonical bytes of its manifest if it is sealed, its envelopes."""

    def __init__(
        self,
        ring: KeyRing,
        manifest: bytes | None,
        digests: Mapping[int, bytes],
        places: Mapping[int, Mapping[int, int]],
        bodies: _Collection,
    ) -> None:
        self.ring = ring
        self.manifest = manifest
        self._digests = digests
        self._places = places
        self._bodies = bodies

    def indexes(self) -> Sequence[int]:
        """The chunks that there are, ascending."""
        return sorted(self._digests)

    def read(self, index: int) -> bytes | None:
        """The envelope of a chunk, whose hash the caller checks; None when the export lacks its body, or a part."""
        parts = self._places.get(index, {})
        if sorted(parts) != list(range(len(parts))) or not parts:
            return None
        return b"".join(bytes(self._bodies.at(parts[number])["data"]) for number in range(len(parts)))


def _find(folder: Path, name: str) -> Path:
    """The file of a collection."""
    wanted = [name + suffix for suffix in _SUFFIXES]
    found = sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.name in wanted and path.is_file())
    if not found:
        raise DumpError(f"{folder} has no {name}.bson or {name}.json: give the folder of a mongodump or mongoexport")
    if len(found) > 1:
        raise DumpError(f"{folder} has {found[0]} and {found[1]}: give the folder of one database, with one of both")
    return found[0]
