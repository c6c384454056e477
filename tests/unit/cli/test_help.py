"""Each command's help: 80 columns, examples that parse, nothing cut off; and what each command has."""

import os
import re
import shlex
from collections.abc import Iterator

import pytest
import typer

from sessions.cli.examples import EXAMPLES
from sessions.cli.main import app
from tests.unit.cli.conftest import Run

COLUMNS = 80


def _commands(group=None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands())
GROUPS = sorted({path[:-1] for path in COMMANDS})


@pytest.mark.parametrize("path", [*COMMANDS, *GROUPS], ids=" ".join)
def test_help_fits_a_terminal(bare: Run, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("TERMINAL_WIDTH", str(COLUMNS))
    shown = bare(*path, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert [line for line in shown.out.splitlines() if len(line) > COLUMNS] == []
    assert not re.search(r"--\S+ <", shown.out), "an option shows a type where a word would say more"
    assert "..." not in shown.out.replace("[ARGS]...", ""), "something is cut off"
    assert ("Examples:\n" in shown.out) == (path in COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_command_has_json(path: tuple[str, ...]) -> None:
    assert any("--json" in option.opts for option in COMMANDS[path].params)


def test_each_command_has_examples_and_no_other() -> None:
    assert EXAMPLES.keys() == {" ".join(path) for path in COMMANDS}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_of_the_command_and_parse(name: str) -> None:
    path = tuple(name.split())
    for example in EXAMPLES[name]:
        (ours,) = [part for part in example.replace("\\\n", " ").split("|") if "lucid-sessions" in part]
        words = shlex.split(ours)[1:]
        assert tuple(words[: len(path)]) == path
        assert COMMANDS[path].make_context(name, words[len(path) :]).params


@pytest.mark.parametrize(
    ("shell", "typed", "offered"),
    [
        ("bash", "lucid-sessions re", {"record", "replay", "receipt", "retention"}),
        ("zsh", "lucid-sessions keys ro", {"rotate"}),
        ("fish", "lucid-sessions record --chunk", {"--chunk-bytes"}),
    ],
)
def test_the_shell_completes(program, shell: str, typed: str, offered: set[str], monkeypatch) -> None:
    monkeypatch.setenv("_LUCID_SESSIONS_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", typed)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    done = program()
    said = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert {word for word in re.findall(r"[\w-]+", said) if word in offered} == offered


def test_the_script_for_a_shell(program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = program("--show-completion", "bash")
    assert done.returncode == 0, done.stderr
    assert b"_LUCID_SESSIONS_COMPLETE=complete_bash" in done.stdout
    assert b"complete " in done.stdout
    assert os.fsencode("lucid-sessions") in done.stdout
