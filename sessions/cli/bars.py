"""Progress on a terminal: a bar, how much, how fast, and how long it will take."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from sessions.cli.output import WIDTH, Advance, size


class Amount(ProgressColumn):
    """What is done, of what there is if that is known."""

    def __init__(self, *, counted: bool) -> None:
        super().__init__()
        self._show = str if counted else size

    def render(self, task: Task) -> Text:
        """Such as `1.5 MiB of 57.2 MiB`."""
        done = self._show(int(task.completed))
        return Text(done if task.total is None else f"{done} of {self._show(int(task.total))}")


class Rate(ProgressColumn):
    """How fast it was in the last seconds."""

    def __init__(self, *, counted: bool) -> None:
        super().__init__()
        self._show = str if counted else size

    def render(self, task: Task) -> Text:
        """Such as `9.1 MiB/s`; empty at first."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{self._show(int(speed))}/s")


class Clock(ProgressColumn):
    """How long it will take; how long it took, where no end is known or it has come."""

    def render(self, task: Task) -> Text:
        """Such as `0:03 left`, or `0:19`."""
        left = None if task.finished or task.total is None else task.time_remaining
        if left is None:
            return Text(_clock(task.elapsed or 0.0))
        return Text(f"{_clock(left)} left")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def bar(what: str, *, counted: bool) -> Iterator[Advance]:
    """A bar on stderr: of bytes, or of things that are `counted`."""
    width = min(Console(stderr=True).width, WIDTH)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        Amount(counted=counted),
        Rate(counted=counted),
        Clock(),
    )
    with Progress(*columns, console=Console(stderr=True, width=width)) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
