"""The model of a fleet, and what is made of a run's figures for documents."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import __main__ as program
from bench import markdown, model, model_tables, options
from bench.model import Line, Workload
from bench.results import Results

SAMPLE = Path(__file__).parent / "figures.json"
DOCUMENT: dict[str, Any] = json.loads(SAMPLE.read_text())


def results() -> Results:
    return Results.of_document(DOCUMENT["figures"])


def test_figures_come_back_as_they_were_written() -> None:
    assert results().document() == DOCUMENT["figures"]


@given(st.floats(0.001, 1000), st.floats(0.001, 1000), st.lists(st.integers(1, 10**6), min_size=2, unique=True))
def test_a_line_is_found_again(once: float, each: float, counts: list[int]) -> None:
    found = Line.through([(count, once + each * count) for count in counts])
    assert all(found.at(count) == pytest.approx(once + each * count, rel=1e-3) for count in counts)


@pytest.mark.parametrize(
    ("points", "once", "each"),
    [
        ([(10, 5.0)], 5, 0),
        ([(1, 4.0), (2, 4.0)], 4, 0),
        ([(1, 9.0), (100, 3.0)], None, 0),  # it became cheaper by being more: noise
        ([(10, 1.0), (100, 30.0)], 0, None),  # it would be below nothing for few
    ],
)
def test_a_line_has_no_negative_part(points: list[tuple[float, float]], once: float | None, each: float | None) -> None:
    found = Line.through(points)
    assert found.once >= 0
    assert found.each >= 0
    assert once is None or found.once == pytest.approx(once)
    assert each is None or found.each == pytest.approx(each)


@pytest.mark.parametrize("points", [[], [(1, 0.0)], [(1, 1.0), (2, -1.0)]])
def test_a_line_through_nothing(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="needs points"):
        Line.through(points)


def test_what_took_too_little_time_to_be_measured_is_left_out() -> None:
    found = results()
    cells = [name for name in found.series if name.endswith("| CPU storage")]
    for name in cells:
        if "8 MiB" in name or "64 KiB x 1 " in name:
            found.series[name].values[:] = [0.0]
    fitted = model.fit(found)
    assert not [check for check in fitted.checks if check.what.startswith("CPU of storage")]
    assert fitted.cpu["storage"].each > 0


def test_it_is_fitted_on_small_sizes_and_held_against_large_ones() -> None:
    found = Results()
    for name, series in results().series.items():
        if not name.startswith("seal "):
            found.series[name] = series
    for size in (1_000, 10_000, 1_000_000):
        found.add(f"seal {size} | time", 0.01 + size * 1e-5, "s")
    fitted = model.fit(found)
    (check,) = [check for check in fitted.checks if "seal" in check.what]
    assert (check.measured, check.predicted) == (pytest.approx(10.01), pytest.approx(10.01))
    found.series["seal 1000000 | time"].values[:] = [20.02]
    (check,) = [check for check in model.fit(found).checks if "seal" in check.what]
    assert check.predicted == pytest.approx(10.01)  # it has not seen it
    assert check.off == pytest.approx(-0.5)


def test_it_predicts_what_it_has_not_seen() -> None:
    """On the figures of a real run. It is off by some: the machine was busy."""
    checks = model.fit(results()).checks
    assert {check.what.partition(",")[0] for check in checks} >= {"CPU of processor", "CPU of storage", "CPU of mongod"}
    assert len(checks) >= 3
    near = [check for check in checks if -0.67 < check.off < 2]
    assert len(near) >= len(checks) / 2, [(check.what, check.off) for check in checks]


@pytest.mark.parametrize("missing", ["ours 64 KiB", "seal ", "batch of", "disk | a session"])
def test_a_run_of_a_part_alone_is_too_little(missing: str) -> None:
    part = Results({name: one for name, one in results().series.items() if not name.startswith(missing)})
    if missing.startswith("ours"):
        part = Results({name: one for name, one in part.series.items() if " x " not in name})
    with pytest.raises(ValueError, match="measure without --only"):
        model.fit(part)


def test_a_workload_is_what_its_parts_say() -> None:
    load = Workload(sessions_a_day=86_400, session_minutes=2, chunk_bytes=1000, chunk_seconds=0.5, peak=3)
    assert load.chunks == 240
    assert load.sessions_a_second == 3
    assert load.open_at_once == 360
    assert load.bytes_a_second == 3 * 240 * 1000


def test_needs_grow_with_sessions_and_anchors_do_not() -> None:
    found = model.fit(results())
    few, many = (model.needs(found, Workload(sessions_a_day=count)) for count in (1e5, 1e6))
    for one, ten in zip(few, many, strict=True):
        grows = 1 if one.resource == "anchors" else 10
        assert ten.needed == pytest.approx(grows * one.needed), one.resource
        assert ten.has == one.has
    assert model.disk_bytes_a_day(found, Workload(sessions_a_day=1e6)) == pytest.approx(
        10 * model.disk_bytes_a_day(found, Workload(sessions_a_day=1e5))
    )


def test_a_replica_set_writes_each_body_twice_as_often() -> None:
    found = model.fit(results())
    alone, three = (model.needs(found, Workload(members=count)) for count in (1, 3))
    for one, more in zip(alone, three, strict=True):
        twice = one.resource in ("bytes written by MongoDB", "CPU of mongod")
        assert more.needed == pytest.approx(one.needed * (2 if twice else 1)), one.resource


def test_the_lease_holder_is_full_when_batches_are() -> None:
    found = model.Fit({}, Line(0, 0), Line(0, 0.01), {}, ())
    cpu = dict.fromkeys(("processor", "storage", "mongod"), Line(1, 0))
    disk = dict.fromkeys(model.DISK, 1.0)
    found = model.Fit(cpu, found.seal, found.batch, disk, ())
    (lease,) = [need for need in model.needs(found, Workload(interval_seconds=60)) if "lease" in need.resource]
    assert lease.has == pytest.approx(10_000 / 100)  # a full batch takes 100 s, longer than the interval
    (lease,) = [need for need in model.needs(found, Workload(interval_seconds=500)) if "lease" in need.resource]
    assert lease.has == pytest.approx(10_000 / 500)


def test_gas_does_not_depend_on_sessions() -> None:
    said = model_tables.show(model.fit(results()), Workload(interval_seconds=60))
    # 1,440 calls of 46,161 gas; at 10 gwei and 3,000 a coin
    assert "| 1 min | 1,440 | 66.47 M | 10 | 0.6647 | 1,994.16 | 1,994.16 |" in said


def test_the_command_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--model", str(SAMPLE), "--sessions-a-day", "1000", "--members", "1"]) == 0
    said = capsys.readouterr().out
    assert "| sessions a day | 1,000 |" in said
    assert "first wall is" in said
    assert program.main(["--markdown", str(SAMPLE)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Measured {DOCUMENT['machine']['date']} on ")
    assert "| 64 KiB x 8 |" in said
    assert "| bar | bound | now |  |" in said


@pytest.mark.parametrize("content", ["", "{}", '{"figures": {"a": 1}}', "[]"])
def test_a_file_that_is_none_of_ours(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    path.write_text(content)
    with pytest.raises(SystemExit) as ended:
        program.main(["--model", str(path)])
    assert ended.value.code == 2
    assert "is not what --json writes" in capsys.readouterr().err


def test_a_part_of_a_run_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({**DOCUMENT, "figures": {}}))
    assert program.main(["--model", str(path)]) == 1
    assert "measure without --only" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["0", "-1", "inf", "nan", "x"])
def test_assumptions_that_cannot_be(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--model", str(SAMPLE), "--peak", wrong])
    assert ended.value.code == 2


def test_tables_show_that_nothing_was_checked() -> None:
    part = Results({name: one for name, one in results().series.items() if "8 MiB" not in name})
    for name in [name for name in part.series if name.startswith(("seal 100000", "batch of 10000"))]:
        del part.series[name]
    assert "are not checked" in model_tables.show(model.fit(part), Workload())


def test_the_command_that_is_told_names_no_file() -> None:
    told = options.command(["--quick", "--json", "/a/b", "--rounds", "2", "--plots=/c"])
    assert told.strip() == "scripts/bench --quick --rounds 2"


def test_of_one_round_it_is_said_that_it_is_a_try() -> None:
    assert "a single round" in markdown.about({**DOCUMENT, "rounds": 1})
    assert "medians of 5 rounds" in markdown.about({**DOCUMENT, "rounds": 5})
