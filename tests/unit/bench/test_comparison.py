"""Two versions beside each other: intervals, bars, turns, and where the other version comes from."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import against, comparison, report, usage
from bench.comparison import CELLS, MEASURES, Interval
from bench.results import Results
from bench.versions import VersionError, checkout

SPEED, PROCESSOR, STORAGE, MEDIAN, _ = MEASURES
BARS = (SPEED, PROCESSOR, STORAGE)


def measured(factor: float, rounds: int = 20) -> Results:
    """Return figures that drift by a third from round to round, times `factor`."""
    found = Results()
    for number in range(rounds):
        for cell in CELLS:
            for figure in ("speed", "CPU processor", "CPU storage", "stolen"):
                found.add(f"ours {cell.name} | {figure}", factor * (100 + number % 7 * 5), "x")
    return found


def paced(factor: float) -> Results:
    """Return latencies, times `factor`."""
    found = Results()
    for number in range(20):
        for figure in ("p50", "p99"):
            found.add(f"ours paced | {figure}", factor * (5 + number), "ms")
    return found


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (50, 18)])
def test_the_interval_is_the_one_of_the_sign_test(count: int, rank: int) -> None:
    """The ranks are those of printed tables of the sign test at 95 %."""
    values = [float(number) for number in range(1, count + 1)]
    random.Random(1).shuffle(values)
    assert Interval.of(values) == Interval((count + 1) / 2, rank, count + 1 - rank, known=True)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rounds_give_no_interval(count: int) -> None:
    values = [float(number) for number in range(1, count + 1)]
    assert Interval.of(values) == Interval((count + 1) / 2, 1, count, known=False)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    draw = random.Random(18)
    tries = 2000
    held = 0
    for _ in range(tries):
        found = Interval.of([draw.lognormvariate(0, 0.3) for _ in range(20)])
        held += found.least <= 1 <= found.most
    assert held / tries >= comparison.CONFIDENCE - 0.015


def test_a_ratio_is_taken_within_each_round() -> None:
    """The machine drifts by a third between rounds; the ratio does not."""
    found = SPEED.ratio(measured(1.1), measured(1.0), CELLS[0].name)
    assert found is not None
    assert (found.least, found.most) == (pytest.approx(1.1), pytest.approx(1.1))
    assert SPEED.ratio(Results(), measured(1.0), CELLS[0].name) is None


@pytest.mark.parametrize(
    ("middle", "most", "speed", "cpu"),
    [(0.90, 0.97, True, True), (0.90, 0.969, False, True), (1.03, 1.2, True, True), (1.031, 1.2, True, False)],
)
def test_bars(middle: float, most: float, speed: bool, cpu: bool) -> None:
    found = Interval(middle, 0.8, most, known=True)
    assert SPEED.holds(found) is speed
    assert PROCESSOR.holds(found) is STORAGE.holds(found) is cpu


def test_the_tables_have_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    report.compare(measured(1.05), measured(1.0))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("1.050-1.050") == len(CELLS) * len(BARS)
    assert (said.count("MISSED"), said.count("reached")) == (6, 3)
    assert "64 KiB x 8: 1.30" in said
    assert "Too few rounds" not in said
    report.compare(measured(1.0, 5), measured(1.0, 5))
    assert capsys.readouterr().out.count("Too few rounds") == len(BARS)


def test_a_latency_is_told_and_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert MEDIAN.holds(Interval(9.0, 9.0, 9.0, known=True))
    report.compare(paced(1.25), paced(1.0))
    said = capsys.readouterr().out
    assert (said.count("1.250-1.250"), said.count("none")) == (2, 2)
    assert "Throughput" not in said
    assert not any(word in said for word in ("MISSED", "reached", "The bar"))


def test_each_version_is_first_as_often_as_the_other() -> None:
    for cell in CELLS:
        first = [against.order(cell, number)[0] for number in range(40)]
        assert first.count(against.NOW) == 20
        assert len({tuple(first[number : number + 2]) for number in range(0, 40, 2)}) == 2, "and not always in turns"


def test_another_version_is_a_folder_or_a_commit(tmp_path: Path) -> None:
    repository, services = tmp_path / "repository", ("sessions/storage/main.py", "sessions/processor/main.py")
    for name in services:
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text("before")
    as_somebody = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*as_somebody, "commit", "-qm", "before"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    for name in services:
        (repository / name).write_text("now")
    unpacked = checkout("HEAD", tmp_path / "before", repository)
    assert [(unpacked / name).read_text() for name in services] == ["before", "before"]
    assert checkout(str(repository), tmp_path / "unused") == repository
    with pytest.raises(VersionError, match="neither a folder nor a commit"):
        checkout("--output=x", tmp_path / "none", repository)
    with pytest.raises(VersionError, match=r"has no sessions/storage/main\.py"):
        checkout(str(tmp_path), tmp_path / "none")


@pytest.mark.parametrize(
    "further",
    [[], ["--only", "sealing"], ["--only", "recording", "--profile"], ["--only", "recording", "--plots", "x"]],
)
def test_only_recording_and_latency_are_compared(further: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--against", "HEAD", *further])
    assert "--against goes" in capsys.readouterr().err


def test_cpu_time_of_a_process_is_finer_than_a_tick() -> None:
    before = time.process_time()
    found = usage.cpu_seconds(os.getpid())
    assert before <= found <= time.process_time()
    with pytest.raises(OSError, match="nvalid argument"):
        usage.cpu_seconds(2**22 + 1)
