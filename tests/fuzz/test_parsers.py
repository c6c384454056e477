"""Every parser of foreign bytes, for a few seconds; `scripts/fuzz` goes on for as long as one likes."""

import secrets
import time
from pathlib import Path

import pytest

from tests.fuzz import run, trial
from tests.fuzz.parsers import PARSERS, Parser

EXAMPLES = 400


@pytest.mark.parametrize("name", PARSERS)
def test_only_documented_errors_come_out_and_what_parses_is_what_was_read(name: str, tmp_path: Path) -> None:
    number = secrets.randbelow(2**32)
    print(f"scripts/fuzz --seed {number} {name}")
    counts = trial.examples(PARSERS[name], tmp_path, EXAMPLES, number)
    assert counts.tried >= EXAMPLES // 2
    assert counts.parsed > 0


@pytest.mark.parametrize("name", PARSERS)
def test_the_seeds_parse(name: str, tmp_path: Path) -> None:
    for data in PARSERS[name].seeds:
        assert trial.try_one(PARSERS[name], data, tmp_path), data


# What the fuzzing found, and what it would not find by itself within seconds.
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("recovery-public", b"lucid-recovery-public-v1:\x80"),
        ("recovery-private", b"lucid-recovery-private-v1:\x80"),
        ("receipt", b"[" * 100_000),
        ("manifest", b'{"a":' * 40_000),
        ("key-ring", b"9" * 200_000),
        ("kek", b"k:" + b"\xd9\xa1" * 20),
        ("range", b"bytes=" + b"9" * 19 + b"-"),
        ("sessions-cursor", b"WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5IiwgImEiXQ=="),
    ],
)
def test_an_input_that_is_refused_as_documented(name: str, data: bytes, tmp_path: Path) -> None:
    assert not trial.try_one(PARSERS[name], data, tmp_path)


def _wrong(data: bytes, _: Path) -> None:
    if b"!" in data:
        raise KeyError("nobody documented this")
    raise ValueError(data)


def test_a_finding_is_told_kept_and_found_again(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setitem(PARSERS, "wrong", Parser("wrong", (b"begin!end",), _wrong, (ValueError,)))
    assert run.main(["--minutes", "0.001", "--seed", "7", "--output", str(tmp_path), "wrong"]) == 1
    said, (kept,) = capfd.readouterr().out, tmp_path.glob("wrong-7.input")
    assert "FOUND, with the seed 7" in said
    assert b"!" in kept.read_bytes()
    assert run.main(["--replay", str(kept), "wrong"]) == 1
    kept.write_bytes(b"?")
    assert run.main(["--replay", str(kept), "wrong"]) == 0
    assert "is refused, as documented" in capfd.readouterr().out


def test_the_same_seed_tries_the_same_inputs(tmp_path: Path) -> None:
    tried: list[list[bytes]] = [[], []]
    for seen in tried:
        parser = Parser("seen", (b"begin", b"end"), lambda data, _, seen=seen: seen.append(data), ())
        trial.examples(parser, tmp_path, 50, 3)
    assert tried[0] == tried[1] != []


def test_too_much_time_and_too_much_memory_are_findings(tmp_path: Path) -> None:
    def hang(_data: bytes, _folder: Path) -> None:
        while True:
            time.thread_time()

    with pytest.raises(trial.HangError):
        trial.try_one(Parser("hang", (), hang, ()), b"", tmp_path)
    with pytest.raises(AssertionError, match="bytes of memory"):
        trial.try_one(Parser("large", (), lambda *_: bytearray(10_000_000), ()), b"", tmp_path)
    with pytest.raises(AssertionError, match="as long as its input"):
        trial.try_one(Parser("long", (), _wrong, (ValueError,)), b"a" * 2000, tmp_path)
