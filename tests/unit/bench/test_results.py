"""Figures of a benchmark: what a run says of itself must be right before it says anything of us."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import corpus, hops, plots, report, tables, usage
from bench.ingest import CELLS
from bench.results import Bar, Results, percentile, slope


def results(**figures: list[float]) -> Results:
    found = Results()
    for name, values in figures.items():
        for value in values:
            found.add(name, value, "x")
    return found


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.51, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: int) -> None:
    values = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(values)
    assert percentile(values, share) == expected


def test_of_one_value_every_percentile_is_that() -> None:
    assert percentile([3.0], 0.99) == 3.0


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_is_the_exponent(power: float) -> None:
    sizes = [10.0, 100.0, 1000.0]
    assert slope(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


def test_a_ratio_is_one_of_medians() -> None:
    found = results(a=[1, 9, 8], b=[2, 100, 4])
    assert found.ratio("a", "b") == 2
    assert found.ratio("a", "c") is None


def test_a_bar_is_reached_missed_or_was_not_measured() -> None:
    found = results(a=[8], b=[10])
    assert Bar("", "a", "b", 0.8).met(found) is True
    assert Bar("", "a", "b", 0.81).met(found) is False
    assert Bar("", "a", "", 8, at_most=True).met(found) is True
    assert Bar("", "a", "", 7.9, at_most=True).met(found) is False
    assert Bar("", "c", "", 1).met(found) is None


def test_every_bar_names_figures_of_a_run() -> None:
    """A bar whose figure is misspelt would never be missed."""
    names = {
        f"{who} {cell.name} | {what}" for cell in CELLS for who in ("ours", "bare") for what in ("speed", "chunks")
    }
    names |= {f"{tool} {what} | speed" for tool in ("restic", "borg") for what in ("backup", "restore")}
    names |= {f"{who} paced | {what}" for who in ("ours", "bare") for what in ("p50", "p99")}
    names |= {"seal 1000000 | time", "seal 1000000 | more memory", "prove in 1000000 | time", "ours replay | speed"}
    names |= {"batch of 10000 | made in", "batch of 10000 | gas", "lag processor | p99", "lag storage | p99"}
    assert {name for bar in tables.BARS for name in (bar.figure, bar.beside) if name} <= names


def test_what_a_run_came_to_is_shown_in_80_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = Results()
    for cell in CELLS:
        for who, speed in (("ours", 200.0), ("bare", 1234.5)):
            for what in ("speed", "p50", "p99", "CPU processor", "memory storage"):
                found.add(f"{who} {cell.name} | {what}", speed, "")
    for size in (1000, 1_000_000):
        for what in (f"seal {size} | time", f"prove in {size} | time"):
            found.add(what, size / 1e6, "s")
    for who in ("ours paced", "ours paced, first", "hops paced", "bare paced"):
        found.add(f"{who} | p50", 2.71, "ms")
    for percent in (3.0, 7.0, 61.0):
        found.add("bare paced | stolen", percent, "%")
    found.add("batch of 10000 | gas", 46161, "gas")
    report.show(found)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "0.16" in said  # 200 by 1,234.5
    assert "MISSED" in said
    assert "46,161" in said
    assert said.count("2.71") == 4
    assert said.count("stolen of the CPU time asked for") == 1, "of the recording it was not measured"
    assert "stolen of the CPU time asked for: 7% (3-61)" in said
    drawn = plots.draw(found, tmp_path)
    assert [path.name for path in drawn] == ["bench-recording.svg", "bench-sealing.svg"]
    assert all(path.read_text().lstrip().startswith("<?xml") for path in drawn)
    json.dumps(found.document())


def test_what_is_stolen_is_a_share_of_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    #                     user nice system idle waiting interrupts soft stolen guest guest_nice
    looks = [
        "cpu  1000 200 300 9000 50 10 40 70 1000 0\ncpu0 1 1",
        "cpu  1030 210 320 9900 90 15 50 95 1030 0\ncpu0 2 2",
    ]
    told = iter([looks[0], looks[1], looks[1], looks[1]])
    monkeypatch.setattr(usage.Path, "read_text", lambda _: next(told))
    assert usage.Stolen().percent() == 25, "25 of 100: 75 were used"
    assert usage.Stolen().percent() == 0, "nobody asked for any"


def test_the_corpus_of_a_seed_is_always_the_same_and_has_no_piece_twice(tmp_path: Path) -> None:
    one, same = (corpus.make(tmp_path / name, 12, 7) for name in ("one", "same"))
    other = corpus.make(tmp_path / "other", 12, 8)
    assert one.content() == same.content()
    assert one.content() != other.content()
    assert one.size_bytes == len(one.content()) == 12 * 1024 * 1024
    pieces = corpus.cut(one.content(), 64 * 1024, 1)[0]
    assert len({bytes(piece) for piece in pieces}) == len(pieces)


def test_files_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b").write_bytes(b"second")
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "link").symlink_to("a")
    assert corpus.of_folder(tmp_path).content() == b"firstsecond"
    with pytest.raises(ValueError, match="no file with anything in it"):
        corpus.of_folder(tmp_path / "below" / "nothing")


@given(st.binary(min_size=1, max_size=300), st.integers(1, 40), st.integers(1, 9))
def test_cut_gives_every_byte_once_and_in_order(content: bytes, chunk_bytes: int, sessions: int) -> None:
    shares = corpus.cut(content, chunk_bytes, sessions)
    assert b"".join(bytes(chunk) for share in shares for chunk in share) == content
    assert len(shares) <= sessions
    assert all(share for share in shares)


def test_two_services_that_do_not_start(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="storage does not start"), hops.running("mongodb://:none"):
        pass
    assert "must be escaped" in capfd.readouterr().err
