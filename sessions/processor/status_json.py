"""Reading a session's status that holds metadata of any depth, which is passed over and not parsed."""

import json
import re
from typing import Any, Final

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]', re.DOTALL)
"""A string, or a character of JSON's structure."""
_METADATA: Final = b'"metadata"'


def without_metadata(content: bytes) -> dict[str, Any]:
    """Return the JSON object of `content` without its member `metadata`, if it has one.

    Raises:
        ValueError: it is no such object.
    """
    try:
        view: Any = json.loads(content)
    except RecursionError:
        view = json.loads(_cut(content))
    if not isinstance(view, dict):
        raise ValueError("this is no JSON object")  # noqa: TRY004 - as `json` says of other content
    view.pop("metadata", None)
    return view


def _cut(content: bytes) -> bytes:
    """Put null in the place of the metadata's value. No recursion, so that no depth is too much."""
    depth, before, start = 0, b"", -1
    for token in _TOKEN.finditer(content):
        text = token.group()
        closes = text in (b"}", b"]")
        depth += (text in (b"{", b"[")) - closes
        if start >= 0 and (depth == 0 or (depth == 1 and text == b",")):
            return content[:start] + b"null" + content[token.start() :]
        if depth == 1 and text == b":" and before == _METADATA:
            start = token.end()
        before = text
    return content
