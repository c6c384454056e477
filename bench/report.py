"""What a run came to, for people: tables of 80 columns, and which bars are reached."""

from collections.abc import Iterable
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import comparison, tables
from bench.results import Results

_COLUMNS: Final = 80


def show(results: Results) -> None:
    """Print all tables of what was measured."""
    _print(tables.of(results))


def compare(now: Results, before: Results) -> None:
    """Print what two versions came to, beside each other."""
    _print(comparison.of(now, before))
    print(comparison.noise(now, before))


def _print(found: Iterable[tables.Figures]) -> None:
    console = Console(width=_COLUMNS, highlight=False)
    for figures in found:
        table = Table(title=figures.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for number, name in enumerate(figures.head):
            table.add_column(name, justify="right" if number else "left")
        for row in figures.rows:
            table.add_row(*row)
        table.caption = figures.below or None
        console.print(table)
