"""Exports of MongoDB: every form of them is read, and what is none is said to be none."""

import gzip
from collections.abc import Callable
from pathlib import Path

import bson
import pytest
from bson import json_util
from hypothesis import given

from sessions.core.key_ring import WrappedDek
from sessions.core.types import SessionId
from sessions.storage.dump import Dump, DumpError
from sessions.storage.key_documents import key_document, key_of
from tests import strategies
from tests.unit.processor.recorded import Recorded, documents, recorded

__all__ = ["recorded"]
S = SessionId("s")


def _bson(found: list[dict]) -> bytes:
    return b"".join(map(bson.encode, found))


def _lines(options: json_util.JSONOptions) -> Callable[[list[dict]], bytes]:
    return lambda found: "".join(json_util.dumps(one, json_options=options) + "\n" for one in found).encode()


def _array(found: list[dict]) -> bytes:
    lines = (json_util.dumps(one, json_options=json_util.CANONICAL_JSON_OPTIONS) for one in found)
    return ("[" + ",\n".join(lines) + "]\n").encode()


FORMS = {
    "bson": _bson,
    "json": _lines(json_util.RELAXED_JSON_OPTIONS),
    "canonical.json": _lines(json_util.CANONICAL_JSON_OPTIONS),
    "array.json": _array,
}


def _write(folder: Path, found: dict[str, list[dict]], form: str, zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in found.items():
        data = FORMS[form](one)
        suffix = form.rpartition(".")[2] + (".gz" if zipped else "")
        (folder / f"{name}.{suffix}").write_bytes(gzip.compress(data) if zipped else data)


@given(strategies.wrapped_deks)
def test_a_key_comes_back_from_its_document(key: WrappedDek) -> None:
    assert key_of(bson.decode(bson.encode(key_document(key)))) == key


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", ["", "lucid_sessions"])
def test_every_form(recorded: Recorded, tmp_path: Path, form: str, zipped: bool, inner: str) -> None:
    _write(tmp_path / "d" / inner, documents(recorded, recorded.manifest.to_bytes()), form, zipped)
    (tmp_path / "d" / inner / "sessions.metadata.json").write_text("not looked at")
    with Dump(tmp_path / "d") as dump:
        found = dump.session(S)
        assert (found.ring, found.manifest) == (recorded.ring, recorded.manifest.to_bytes())
        assert found.indexes() == [0, 1, 2]
        for index in (2, 0, 1):
            assert found.read(index) == recorded.sealed[index].envelope


def test_bodies_that_are_not_there(recorded: Recorded, tmp_path: Path) -> None:
    found = documents(recorded, None)
    found["bodies"] = [one for one in found["bodies"] if (one["_id"]["i"], one["_id"]["p"]) not in ((1, 0), (2, 1))]
    found["bodies"] = [one for one in found["bodies"] if one["_id"]["i"] != 0]
    _write(tmp_path / "d", found, "bson")
    with Dump(tmp_path / "d") as dump:
        session = dump.session(S)
        assert session.manifest is None
        assert session.read(0) is None
        assert session.read(1) is None
        assert session.read(2) != recorded.sealed[2].envelope  # its tag will tell


def _refused(folder: Path, message: str, session: SessionId = S) -> None:
    with pytest.raises(DumpError, match=message), Dump(folder) as dump:
        dump.session(session)


def test_what_is_no_export(recorded: Recorded, tmp_path: Path) -> None:
    folder = recorded.dump
    _refused(tmp_path / "none", "has no sessions.bson")
    _refused(folder, "has no session other.one", SessionId("other.one"))
    sessions = folder / "sessions.bson"
    whole = sessions.read_bytes()
    for data in (whole[:-1], b"\x01", b"\x00" * 8, b"\xff" * 8, whole[:30] + b"\xff" * (len(whole) - 30)):
        sessions.write_bytes(data)
        _refused(folder, "is not an export of MongoDB, at byte")
    sessions.write_bytes(whole)
    (folder / "sessions.json").write_text("{}")
    _refused(folder, "with one of both")
    sessions.unlink()
    for text in ("{", "5", '{"_id": {"$binary": 5}}', "[" * 100_000, '{\n  "_id": "s"\n}'):
        (folder / "sessions.json").write_text(text)
        _refused(folder, "is not an export of MongoDB, at byte")
    (folder / "sessions.json").rename(folder / "sessions.json.gz")
    _refused(folder, "is not an export of MongoDB, at byte 0")


@pytest.mark.parametrize(
    ("collection", "change"),
    [
        ("sessions", {"keys": [{}]}),
        ("sessions", {"keys": 5}),
        ("sessions", {"keys": [{"dek_id": "text", "kek_id": "k", "wrapped": b""}]}),
        ("sessions", {"manifest": "text"}),
        ("chunks", {"_id": {"i": 1}}),
        ("chunks", {"_id": "s"}),
        ("chunks", {"envelope_sha256": None}),
        ("bodies", {"_id": {"s": "s", "i": 1}}),
    ],
)
def test_documents_that_are_not_ours(recorded: Recorded, tmp_path: Path, collection: str, change: dict) -> None:
    found = documents(recorded, recorded.manifest.to_bytes())
    found[collection] = [one | change if one["_id"] != "other" else one for one in found[collection]]
    _write(tmp_path / "d", found, "bson")
    _refused(tmp_path / "d", "are not ours")


def test_a_session_that_was_shredded(recorded: Recorded, tmp_path: Path) -> None:
    _write(tmp_path / "d", documents(recorded, None, "shredded"), "bson")
    _refused(tmp_path / "d", "was shredded before the export was made")


def test_files_that_change_meanwhile_or_cannot_be_opened(recorded: Recorded, monkeypatch) -> None:
    with Dump(recorded.dump) as dump:
        session = dump.session(S)
        (recorded.dump / "bodies.bson").write_bytes(b"")
        with pytest.raises(DumpError, match=r"bodies.bson changed while it was read"):
            session.read(0)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "chunks.bson")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DumpError, match=r"cannot read chunks.bson: Permission denied"):
        Dump(recorded.dump)
