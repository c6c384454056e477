"""A browser on the stack's console. Whatever it complains of, and whomever else it asks, fails the test."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from scripts.devstack.process import ROOT
from scripts.devstack.stack import Stack

AXE = (ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text()
WAIT_MS = 30_000
"""Another run may have the processors: nothing here is a measure of time."""


@dataclass
class Console:
    """A browser's window, and what it complained of and asked for."""

    stack: Stack
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    expected: list[str] = field(default_factory=list)
    """What a complaint that a test provokes has in it."""
    nodes: set[str] = field(default_factory=set)
    """The nodes of a chain that the test types in."""

    def page(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def note(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data"):
            self.asked.add(f"{parts.scheme}://{parts.netloc}")

    def open(self, view: str = "sessions", token: str | None = None) -> Page:
        """Signed in, at a view."""
        page = self.page()
        page.goto(f"{self.stack.storage_url}/console#/{view}")
        page.get_by_label("Token", exact=True).fill(token or self.operator)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        return page

    @property
    def operator(self) -> str:
        """A token with all roles of a person."""
        return (self.stack.folder / "secrets" / "operator-token").read_text().strip()

    def check(self) -> None:
        """No complaint but those that were provoked, and nobody asked but the services and the node that was typed in."""
        assert self.asked <= {self.stack.storage_url, self.stack.processor_url, *self.nodes}
        unforeseen = [text for text in self.complaints if not any(part in text for part in self.expected)]
        assert unforeseen == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Debian's wrapper finds the program; root has no sandbox.
        one = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield one
        one.close()


MakeConsole = Callable[..., Console]


@pytest.fixture
def make_console(browser: Browser, stack: Stack) -> Iterator[MakeConsole]:
    """Windows of any kind; each is looked at in the end."""
    made: list[Console] = []

    def make(**options: Any) -> Console:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"} | options)
        one = Console(stack, context)
        context.on("request", one.note)
        made.append(one)
        return one

    yield make
    for one in made:
        one.context.close()
        one.check()


@pytest.fixture
def console(make_console: MakeConsole) -> Console:
    """A desktop's window."""
    return make_console()


def faults_of_access(page: Page) -> list[str]:
    """Serious and critical faults that axe-core finds. It comes in past the page's policy, which stays as it is."""
    page.evaluate(AXE + "; undefined")
    found = json.loads(page.evaluate("async () => JSON.stringify((await axe.run()).violations)"))
    return [
        f"{fault['impact']}: {fault['id']}: {[node['html'][:200] for node in fault['nodes']][:5]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
