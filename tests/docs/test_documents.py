"""Every block of commands in README and the documents is executed, here or by the test that it names."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from scripts.devstack.process import ROOT
from scripts.devstack.services import Secrets
from scripts.devstack.stack import Stack
from tests.docs.blocks import Block, DocumentError, blocks

PAGES: Final = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "sessions/core/FORMAT.md",
]
CONTEXTS: Final = ("checkout", "stack")
PROGRAMS: Final = Path(sys.executable).parent
_SECONDS: Final = 150


def _names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _contexts(page: Path) -> dict[str, list[Block]]:
    """The blocks of a page that run here, by context."""
    found: dict[str, list[Block]] = {}
    for block in blocks(page):
        if (context := block.context()) is not None:
            found.setdefault(context, []).append(block)
    return found


def _runs() -> list[tuple[Path, str]]:
    """Pages and contexts in which they have blocks; a page that is wrong fails in the test that looks at it."""
    found = []
    for page in PAGES:
        try:
            found += [(page, context) for context in _contexts(page)]
        except DocumentError:
            continue
    return found


@pytest.mark.parametrize("page", PAGES, ids=_names)
def test_each_block_says_how_it_runs(page: Path) -> None:
    assert set(_contexts(page)) <= set(CONTEXTS)


@pytest.fixture
def checkout(tmp_path: Path) -> dict[str, str]:
    """A folder in which the checkout is, with a stack of its own, and settings for it.

    What is in it are links, so that what a block writes is not in the checkout; scripts run where they are.
    """
    for entry in ROOT.iterdir():
        if entry.name not in ("scripts", ".stack", ".demo", ".git"):
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").iterdir():
        if script.is_file():
            here = tmp_path / "scripts" / script.name
            here.write_text(f'#!/bin/sh\nexec "{script}" "$@"\n')
            here.chmod(0o755)
    return {"LUCID_STACK_DIR": str(tmp_path / ".stack")}


@pytest.fixture
def running(stack: Stack) -> dict[str, str]:
    """Settings of the command line for the stack that runs, as `scripts/stack env` gives them."""
    token = Secrets(stack.folder / "secrets").operator_token
    return {
        "LUCID_PROCESSOR_URL": stack.processor_url,
        "LUCID_STORAGE_URL": stack.storage_url,
        "LUCID_RPC_URL": stack.rpc_url,
        "LUCID_TOKEN_FILE": str(token),
    }


@pytest.fixture
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str, list[Block]], None]]:
    """Runs blocks in one shell; the first command that fails ends it."""

    def run(context: str, wanted: list[Block]) -> None:
        own = request.getfixturevalue({"stack": "running"}.get(context, context))
        clean = {name: value for name, value in os.environ.items() if name[:6] != "LUCID_" or "_TEST_" in name}
        program = "".join(f"block={one.line}\n{one.program()}\n" for one in wanted)
        ran = subprocess.run(
            [
                "bash",
                "-c",
                f"set -Eeuo pipefail\ntrap 'echo \"failed in the block of line $block: $BASH_COMMAND\" >&2' ERR\n{program}",
            ],
            cwd=tmp_path,
            env={**clean, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "COLUMNS": "80", **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert ran.returncode == 0, f"{wanted[0].page.name}\n{ran.stdout[-8000:]}\n{ran.stderr[-4000:]}"

    yield run
    if "LUCID_STACK_DIR" in (own := request.node.funcargs.get("checkout", {})):
        subprocess.run(
            [ROOT / "scripts" / "stack", "stop", "--dir", own["LUCID_STACK_DIR"]], check=True, capture_output=True
        )


@pytest.mark.parametrize(
    ("page", "context"), _runs(), ids=lambda value: value if isinstance(value, str) else _names(value)
)
def test_the_commands_do_what_they_should(page: Path, context: str, shell: Callable[[str, list[Block]], None]) -> None:
    shell(context, _contexts(page)[context])


_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """What a link can point to in a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=_names)
def test_each_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_names_each_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    links = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in _LINK.findall(index)}
    assert [page.name for page in PAGES if page.name != "README.md" and page not in links] == []


class TestBlocks:
    """The runner cannot be passed by a block that it does not see, or that says what is not so."""

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("```sh\ntrue\n```\n", "nothing says how this block runs"),
            ("<!-- run -->\n```sh\ntrue\n```\n", "says neither"),
            ("<!-- elsewhere: tests/none.py, it takes an hour -->\n```sh\ntrue\n```\n", "there is no tests/none.py"),
            (
                "<!-- elsewhere: tests/conftest.py::none, it takes an hour -->\n```python\n1\n```\n",
                "there is no .*::none",
            ),
            (
                "<!-- elsewhere: tests/conftest.py, it takes an hour -->\n```sh\nscripts/restore x\n```\n",
                "nothing of 'restore'",
            ),
            ("```bash\ntrue\n```\n", "'bash' is not one of"),
            ("<!-- run: stack -->\nA word between.\n```sh\ntrue\n```\n", "nothing says how this block runs"),
            ("1. In a list:\n\n   ```sh\n   true\n   ```\n", "nothing says how this block runs"),
        ],
    )
    def test_a_block_that_is_refused(self, text: str, reason: str, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(DocumentError, match=reason):
            _contexts(page)

    def test_a_command_that_fails_is_found(self, shell: Callable[[str, list[Block]], None], tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(
            "\n<!-- run: checkout, after `echo one >log`, `20` as `1` -->\n```sh\necho 20 >>log\nfalse\necho no\n```\n"
        )
        ((context, wanted),) = _contexts(page).items()
        with pytest.raises(AssertionError, match="failed in the block of line 3: false"):
            shell(context, wanted)
        assert (tmp_path / "log").read_text() == "one\n1\n"

    def test_what_is_to_be_short_and_is_not_there(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("<!-- run: stack, `--minutes 20` as `--minutes 1` -->\n```sh\ntrue\n```\n")
        (block,) = blocks(page)
        with pytest.raises(DocumentError, match="there is no '--minutes 20'"):
            block.program()
