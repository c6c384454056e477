"""SECURITY.md and the tests hold each other: each row of the table has tests, each test here plays a row."""

import ast
import re
from pathlib import Path

import pytest

from scripts.devstack.process import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()


def _rows(heading: str) -> dict[str, list[str]]:
    """The cells of a table by those of its first column."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({one[0] for one in cells}) == len(cells)
    return {one[0]: one[1:] for one in cells}


THREATS = _rows("Who attacks, and what becomes of it")
TESTS = {
    row: [tuple(name.split("::")) for name in re.findall(r"`([^`]+)`", cells[0])]
    for row, cells in _rows("The tests of each row").items()
}


def _functions(path: Path) -> set[str]:
    """The tests that are defined in a file."""
    found = ast.walk(ast.parse(path.read_text()))
    functions = (one for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return {one.name for one in functions if one.name.startswith("test_")}


def test_each_row_says_all_and_has_its_tests() -> None:
    assert list(TESTS) == list(THREATS)
    assert len(THREATS) > 20
    for row, cells in THREATS.items():
        assert len(cells) == 4, row
        assert all(cells), row


@pytest.mark.parametrize("row", TESTS)
def test_each_named_test_is_there(row: str) -> None:
    assert TESTS[row]
    for file, function in TESTS[row]:
        assert function in _functions(ROOT / "tests" / file), f"{file}::{function}"


def test_each_test_of_attacks_plays_a_row() -> None:
    named = {one for tests in TESTS.values() for one in tests}
    folder = Path(__file__).parent
    for path in folder.glob("test_*.py"):
        if path != Path(__file__):
            lost = {name for name in _functions(path) if (f"attacks/{path.name}", name) not in named}
            assert lost == set(), path.name
