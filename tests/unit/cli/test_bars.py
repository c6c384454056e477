"""What a bar says while something goes on."""

import pytest
from rich.progress import Progress

from sessions.cli.bars import Amount, Clock, Rate, _clock

MIB = 1024 * 1024


def _said(total: int | None, steps: list[int], *, counted: bool = False) -> list[str]:
    now = 0.0
    bar = Progress(get_time=lambda: now)
    task = bar.add_task("record", total=total)
    for done in steps:
        now += 1
        bar.update(task, completed=done)
    columns = (Amount(counted=counted), Rate(counted=counted), Clock())
    return [column.render(bar.tasks[0]).plain for column in columns]


@pytest.mark.parametrize(
    ("total", "steps", "said"),
    [
        (100 * MIB, [], ["0 B of 100.0 MiB", "", "0:00"]),
        (100 * MIB, [10 * MIB, 20 * MIB, 30 * MIB], ["30.0 MiB of 100.0 MiB", "10.0 MiB/s", "0:07 left"]),
        (20 * MIB, [10 * MIB, 20 * MIB], ["20.0 MiB of 20.0 MiB", "10.0 MiB/s", "0:02"]),
        (None, [10 * MIB, 20 * MIB, 30 * MIB], ["30.0 MiB", "10.0 MiB/s", "0:03"]),
    ],
)
def test_bytes(total: int | None, steps: list[int], said: list[str]) -> None:
    assert _said(total, steps) == said


def test_things_that_are_counted() -> None:
    assert _said(4000, [1000, 2000], counted=True) == ["2000 of 4000", "1000/s", "0:02 left"]


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00")])
def test_clock(seconds: float, text: str) -> None:
    assert _clock(seconds) == text
