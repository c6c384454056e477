"""What a person sees: results on stdout, notes on stderr, 80 columns wide."""

import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from sessions.client.targets import ANYBODY, open_out
from sessions.core.receipt import Anchor

WIDTH: Final = 80

Advance: TypeAlias = Callable[[int, int | None], None]
"""`advance(done, total)`, of bytes or of things; the total is None when not known."""


def note(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr)  # noqa: T201 - this is the module that prints


def line(text: str) -> None:
    """A line of the result."""
    print(text)  # noqa: T201 - the same


def document(value: Any) -> None:
    """The one JSON document of `--json`."""
    line(json.dumps(jsonable(value), indent=2))


def jsonable(value: Any) -> Any:
    """Records as JSON objects; bytes in lower-case hex."""
    if isinstance(value, Anchor) or hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return value


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair a line; those that are None are left out."""
    shown = [(name, str(value)) for name, value in pairs if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        line(f"{name:<{width}}  {value}")


def paragraph(mark: str, text: str) -> None:
    """A marked sentence, wrapped. Hashes are not broken."""
    line(
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=f"{mark} ",
            subsequent_indent=" " * (len(mark) + 1),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def size(count: int) -> str:
    """A number of bytes for people."""
    value, units = float(count), iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    if count < 1024:  # noqa: PLR2004 - the unit
        return f"{count} B"
    unit = ""
    while value >= 1024 and (following := next(units, "")):  # noqa: PLR2004 - the unit
        value, unit = value / 1024, following
    return f"{value:.1f} {unit}"


def table(columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> None:
    """A plain table; a column is its title and whether it is numbers. The first column gives way when it is tight."""
    from rich.console import Console
    from rich.table import Table

    # One space between columns: then an id that was made up fits.
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for place, (title, right) in enumerate(columns):
        grid.add_column(title, justify="right" if right else "left", no_wrap=place > 0, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    console = Console(file=sys.stdout)
    Console(file=sys.stdout, width=min(console.width, WIDTH) if console.is_terminal else WIDTH).print(grid)


def save(path: Path, text: str) -> None:
    """Write a small text that is no secret: into a new file, in the place of an old one, or into a device or a pipe.

    Raises:
        TargetError: it cannot be written.
    """
    with open_out(path, overwrite=True, mode=ANYBODY) as write:
        write(text.encode())


def provide_stdout() -> None:
    """Have results go nowhere if stdout was closed before the process began; the exit code tells all the same."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process runs


def drop_stdout() -> None:
    """Stdout's reader is gone: let the interpreter's last flush go nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
