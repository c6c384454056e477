"""Small files that last, and files that leave nothing."""

import os
import stat
from pathlib import Path

import pytest

from sessions.processor import files
from sessions.processor.files import erase, write_durably


def test_a_file_is_replaced_as_a_whole_and_is_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for data in (b"first", b"", b"y" * 100_000):
        write_durably(path, data)
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["open", "write", "fsync", "rename"])
def test_after_a_failure_it_has_its_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    path = tmp_path / "x.json"
    write_durably(path, b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if fails == "rename" else files.os, fails, refuse)
        with pytest.raises(OSError, match="No space"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda file, data: write(file, bytes(data[:3])))
    write_durably(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


def test_what_is_erased_is_zeros_before_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"secret" * 1000)
    with path.open("rb") as seen:
        erase(path)
        assert seen.read() == bytes(6000)
    assert not path.exists()
    erase(path)


def test_what_cannot_be_overwritten_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    path = tmp_path / "x"
    path.write_bytes(b"secret")
    monkeypatch.setattr(files.os, "fdatasync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        erase(path)
    assert path.exists()
