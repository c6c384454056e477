"""What a run came to, as Markdown: `scripts/bench --markdown FILE`, of the FILE that `--json FILE` wrote."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import comparison, tables
from bench.results import Results


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; all but the first column to the right."""
    lines = [list(head), ["---", *["--:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about(document: Mapping[str, Any]) -> str:
    """On what it was measured, when, with which versions, and by which command."""
    machine = dict(document["machine"])
    command = document.get("command", "scripts/bench")
    first = f"Measured {machine.pop('date')} on {machine.pop('cpu')}, {machine.pop('memory')}, {machine.pop('system')}"
    rest = ", ".join(f"{name} {value.removeprefix(name).strip()}" for name, value in machine.items())
    rounds = document["rounds"]
    how = f"medians of {rounds} rounds" if rounds > 1 else "a single round, which is no more than a try"
    return f"{first}, by `{command}`: {how}. {rest}."


def show(document: Mapping[str, Any]) -> str:
    """All that was measured."""
    results = Results.of_document(document["figures"])
    parts = [about(document)]
    if before := document.get("before"):
        found = comparison.of(results, Results.of_document(before))
    else:
        found = tables.of(results)
    for figures in found:
        parts += [f"**{figures.title}**", table(figures.head, figures.rows), *filter(None, [figures.below])]
    return "\n\n".join(parts)
