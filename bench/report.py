"""What a run came to, for people: tables of 80 columns, and which bars are reached."""

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import tables
from bench.results import Results

_COLUMNS: Final = 80


def show(results: Results) -> None:
    """Print all tables of what was measured."""
    console = Console(width=_COLUMNS, highlight=False)
    for figures in tables.of(results):
        table = Table(title=figures.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for number, name in enumerate(figures.head):
            table.add_column(name, justify="right" if number else "left")
        for row in figures.rows:
            table.add_row(*row)
        table.caption = figures.below or None
        console.print(table)
