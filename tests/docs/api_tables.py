"""The tables of docs/api.md, from the OpenAPI documents: `python -m tests.docs.api_tables` puts them there."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scripts.devstack.process import ROOT
from sessions.runtime.errors import PROBLEMS
from tests.unit.test_access_table import _app

DOCUMENT: Final = ROOT / "docs" / "api.md"
SERVICES: Final = ("chunk-processor", "session-storage")
_OK: Final = 300


def tables() -> dict[str, str]:
    """The table below each heading."""
    found = {"Problems": _problems()}
    for service in SERVICES:
        with tempfile.TemporaryDirectory() as folder:
            document = _app(service, Path(folder)).openapi()
        found[service] = _routes(document)
    return found


def put(text: str, heading: str, table: str) -> str:
    """The document with the table of a heading in the place of the one that it has."""
    section = re.compile(rf"(^## {re.escape(heading)}\n[^|]*^)(?:\|.*\n)+", re.MULTILINE)
    changed, count = section.subn(lambda match: match[1] + table, text)
    assert count == 1, f"there is no table under the heading {heading}"
    return changed


def _problems() -> str:
    rows = "".join(f"| `{code}` | {status} | {title} |\n" for code, (status, title) in PROBLEMS.items())
    return "| code | status | meaning |\n|---|---|---|\n" + rows


def _routes(document: dict[str, Any]) -> str:
    rows = "| route | takes | what it does | answers |\n|---|---|---|---|\n"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            cells = ", ".join(_takes(document, operation)), _what(operation), "; ".join(_answers(operation))
            rows += f"| `{method.upper()} {path}` | {' | '.join(cells)} |\n"
    return rows


def _what(operation: dict[str, Any]) -> str:
    """The first paragraph of what the route says of itself."""
    return " ".join(operation["description"].partition("\n\n")[0].split()).replace("|", "\\|")


def _takes(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            yield f"`?{parameter['name']}=`" + (" (required)" if parameter.get("required") else "")
        elif parameter["in"] == "header":
            yield f"`{parameter['name']}:`"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        members = _members(document, content["schema"])
        yield f"`{{{', '.join(members)}}}`" if members else "bytes" if kind.endswith("octet-stream") else f"`{kind}`"


def _members(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Names of a body's members; `?` follows those that may be left out."""
    for one in schema.get("anyOf", ()):
        if found := _members(document, one):
            return found
    if "$ref" in schema:
        return _members(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return [name + ("" if name in schema.get("required", ()) else "?") for name in schema.get("properties", ())]


def _answers(operation: dict[str, Any]) -> Iterator[str]:
    """Statuses of success, and the problems that are of this route."""
    answers = sorted(operation["responses"].items())
    yield ", ".join(status for status, _ in answers if int(status) < _OK)
    for status, answer in answers:
        codes = [code for code in re.findall(r"`([a-z-]+)`", answer["description"]) if code in PROBLEMS]
        if codes:
            yield f"{status} " + ", ".join(f"`{code}`" for code in codes)


if __name__ == "__main__":
    content = DOCUMENT.read_text()
    for name, table in tables().items():
        content = put(content, name, table)
    DOCUMENT.write_text(content)
