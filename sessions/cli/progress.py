"""How far a long command is, on stderr. Bars are loaded only when there is a terminal that shows them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sessions.cli.output import Advance


@contextmanager
def progress(what: str, *, counted: bool = False) -> Iterator[Advance]:
    """A bar on stderr, when that is a terminal: of bytes or of things that are `counted`, with rate and time."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from sessions.cli.bars import bar

    with bar(what, counted=counted) as advance:
        yield advance
