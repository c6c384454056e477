"""The blocks of commands in the documents, and what the comment above each says of it.

A comment is one line, directly above the block or with one empty line between:

    <!-- run: stack -->                                  in an empty folder, with both services running
    <!-- run: checkout -->                               in the checkout, with nothing running
    <!-- run: stack, after `COMMAND` -->                 when this was done first
    <!-- run: stack, `--minutes 20` as `--minutes 1` -->  in short
    <!-- elsewhere: tests/e2e/test_cli.py::TestVerify, why -->

Blocks of one page that run in the same way run in one shell, one after the other, as a reader would type them.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.devstack.process import ROOT

COMMANDS: Final = ("sh", "python")
"""Languages of blocks that are executed."""
OTHERS: Final = ("", "yaml", "json", "text", "dotenv")
"""Languages of blocks in which nothing is to be executed: figures, files, answers."""

_FENCE: Final = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)")
_COMMENT: Final = re.compile(r" *<!-- (?P<comment>.*) -->")
_RUN: Final = re.compile(r"run: (?P<context>[a-z]+)(?P<more>(?:, (?:after `[^`]+`|`[^`]+` as `[^`]+`))*)")
_MORE: Final = re.compile(r", (?:after `(?P<after>[^`]+)`|`(?P<long>[^`]+)` as `(?P<short>[^`]+)`)")
_ELSEWHERE: Final = re.compile(
    r"elsewhere: (?P<places>[\w./-]+(?:::\w+)*(?: and [\w./-]+(?:::\w+)*)*), (?P<why>.{10,})"
)
_PROGRAM: Final = re.compile(
    r"^\s*(?:sudo )?(?:scripts/([\w-]+)|lucid-sessions ([a-z][a-z-]*)(?: ([a-z][a-z-]*)(?=\s))?)", re.MULTILINE
)


class DocumentError(Exception):
    """A document is not as it should be."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of commands; `line` is that of its fence, from 1."""

    page: Path
    line: int
    language: str
    text: str
    comment: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"

    def context(self) -> str | None:
        """In which context it runs; None when a test runs it elsewhere.

        Raises:
            DocumentError: the comment says neither, or something that is not so.
        """
        if match := _RUN.fullmatch(self.comment):
            return match["context"]
        match = _ELSEWHERE.fullmatch(self.comment)
        if match is None:
            said = f"the comment {self.comment!r} says neither" if self.comment else "nothing says"
            raise DocumentError(f"{self.place}: {said} how this block runs, nor which test runs it elsewhere")
        texts = [_place(self.place, place) for place in match["places"].split(" and ")]
        for words in _PROGRAM.findall(self.text):
            for word in filter(None, words):
                if not any(re.search(rf"\b{re.escape(word)}\b", text) for text in texts):
                    raise DocumentError(f"{self.place}: {match['places']} has nothing of {word!r}")
        return None

    def program(self) -> str:
        """What the shell runs."""
        match = _RUN.fullmatch(self.comment)
        assert match is not None
        before, text = [], self.text
        for more in _MORE.finditer(match["more"]):
            if more["after"]:
                before.append(more["after"])
            elif more["long"] not in text:
                raise DocumentError(f"{self.place}: there is no {more['long']!r} to be changed")
            else:
                text = text.replace(more["long"], more["short"])
        if self.language == "python":
            text = f"python - <<'END OF PYTHON'\n{text}END OF PYTHON\n"
        return "\n".join([*before, text])


def _place(block: str, place: str) -> str:
    """The text of the file that runs a block elsewhere."""
    name, *path = place.split("::")
    file = ROOT / name
    if not file.is_file():
        raise DocumentError(f"{block}: there is no {name}")
    text = file.read_text()
    scope: list[ast.stmt] = ast.parse(text).body if path else []
    for one in path:
        found = [item for item in scope if getattr(item, "name", "") == one]
        if not found:
            raise DocumentError(f"{block}: there is no {place}")
        scope = getattr(found[0], "body", [])
    return text


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of commands of a page.

    Raises:
        DocumentError: a block is of a language that says nothing of what it is.
    """
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    comment = ""
    for line, text in lines:
        fence = _FENCE.fullmatch(text)
        if fence is None:
            if text.strip():
                said = _COMMENT.fullmatch(text)
                comment = said["comment"] if said else ""
            continue
        block = Block(page, line, fence["language"].strip(), _inside(lines, fence), comment)
        comment = ""
        if block.language in COMMANDS:
            yield block
        elif block.language not in OTHERS:
            raise DocumentError(f"{block.place}: {block.language!r} is not one of {', '.join(COMMANDS + OTHERS[1:])}")


def _inside(lines: Iterator[tuple[int, str]], fence: re.Match[str]) -> str:
    """What is in a block, up to the fence that closes it."""
    found = []
    for _, text in lines:
        if text.strip() == fence["fence"]:
            break
        found.append(text[len(fence["indent"]) :] + "\n")
    return "".join(found)
