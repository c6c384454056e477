"""Requests that Schemathesis makes up, by whoever may not: each is refused, whether there is such a session or not.

Who may is read from docs/api-access.md; tests/unit/test_access_table.py holds that against what the code declares.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from scripts.devstack import leaks
from scripts.devstack.process import ROOT, wait_until
from scripts.devstack.stack import Stack
from sessions.core import frames
from sessions.core.envelope import Codec, Header
from sessions.core.types import ChunkIndex, DekId, SessionId
from tests.e2e.conftest import Api, session_name

ROLES = ("record", "replay", "audit", "admin", "processor")
ELSEWHERE = "elsewhere"
"""A token of all roles, for other sessions than those that are asked for."""
NOBODY = "nobody"
EXAMPLES = 8
SERVICES = {"processor": "chunk-processor", "storage": "session-storage"}


def _table(service: str) -> dict[tuple[str, str], set[str]]:
    """Who may, by method and path, as the document says; ELSEWHERE never, where the path names a session."""
    text = (
        (ROOT / "docs" / "api-access.md").read_text().partition(f"\n## {SERVICES[service]}\n")[2].partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["route", *ROLES, "with `sessions=`"]
    found = {}
    for route, *cells in rows[2:]:
        method, path = route.strip("`").split()
        assert set(cells) <= {"", "yes"}
        found[method, path] = {role for role, cell in zip(ROLES, cells, strict=False) if cell}
    return found


@dataclass
class Asking:
    """Both services, tokens, and two sessions: one that is there and one that is not."""

    stack: Stack
    tokens: dict[str, str | None] = field(repr=False)
    there: str
    absent: str
    http: httpx.Client
    asked: int = 0
    statuses: set[int] = field(default_factory=set)

    def answer(self, method: str, url: str, holder: str, options: dict[str, Any]) -> tuple[int, dict[str, Any], Any]:
        """Status, body and headers of a refusal, without what belongs to one request only."""
        token = self.tokens[holder]
        headers = {**options.get("headers", {}), **({"authorization": f"Bearer {token}"} if token else {})}
        found = self.http.request(method, url, **{**options, "headers": headers})
        self.asked += 1
        self.statuses.add(found.status_code)
        assert found.status_code in (401, 403), (holder, method, url, found.status_code, found.text[:300])
        assert found.headers["content-type"] == "application/problem+json"
        body = found.json()
        assert body.pop("request_id") == found.headers["x-request-id"]
        own = ("date", "x-request-id", "content-length")
        return found.status_code, body, {name: value for name, value in found.headers.items() if name not in own}

    def refused(self, method: str, base: str, path: str, holder: str, options: dict[str, Any]) -> None:
        """The answers about the one session and the other are the same, to the letter, and name none of them."""
        answers = []
        for name in (self.there, self.absent):
            url = base + path.replace("{session_id}", name)
            answers.append(self.answer(method, url, holder, _about(options, name)))
        assert answers[0] == answers[1]
        status, body, _ = answers[0]
        assert (status, body["code"]) == ((401, "unauthorized") if holder == NOBODY else (403, "forbidden"))
        assert self.there not in json.dumps(answers[0])


def _about(options: dict[str, Any], name: str) -> dict[str, Any]:
    """The same request, about this session where its body names one."""
    body = options.get("json")
    if isinstance(body, dict) and "session_id" in body:
        return options | {"json": body | {"session_id": name}}
    if options.get("content") == b"envelope":
        header = Header(Codec.STORED, DekId(bytes(16)), bytes(12), ChunkIndex(0), 0, SessionId(name))
        return options | {"content": frames.join([header.to_bytes() + bytes(16)])}
    return options


@pytest.fixture(scope="module")
def asking(stack: Stack, api: Api) -> Iterator[Asking]:
    file = stack.folder / "secrets" / "tokens"
    before, elsewhere = file.read_text(), "lucid_" + secrets.token_urlsafe(32)
    leaks.register("token", elsewhere)
    digest = hashlib.sha256(elsewhere.encode()).hexdigest()
    file.write_text(f"{before}elsewhere roles={','.join(ROLES)} sessions=elsewhere- sha256={digest}\n")
    there, absent = session_name("asked"), session_name("asked")
    api.record(there, [b"first", b"second"])
    tokens: dict[str, str | None] = {**{role: stack.tokens[role] for role in ROLES}, ELSEWHERE: elsewhere, NOBODY: None}
    with httpx.Client(timeout=30, trust_env=False) as http:
        headers = {"authorization": f"Bearer {elsewhere}"}
        for url in (stack.processor_url, stack.storage_url):
            known = f"{url}/api/v1/sessions/elsewhere-1"
            assert wait_until(lambda known=known: http.get(known, headers=headers).status_code == 404, 5)
        yield Asking(stack, tokens, there, absent, http)
    file.write_text(before)


def _options(case: schemathesis.Case) -> dict[str, Any]:
    """What Schemathesis made up besides the path: query, headers and body."""
    options: dict[str, Any] = {"params": dict(case.query or {}), "headers": dict(case.headers or {})}
    options["headers"].pop("Authorization", None)
    if case.media_type == "application/json" and isinstance(case.body, dict | list):
        options["json"] = case.body
    elif isinstance(case.body, bytes):
        options["content"] = case.body
    return options


def _made_up(operation: Any) -> list[schemathesis.Case]:
    """Some requests of an operation, the same ones each time."""
    cases: list[schemathesis.Case] = []

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def take(case: schemathesis.Case) -> None:
        cases.append(case)

    take()
    assert cases
    return cases


@pytest.mark.parametrize("service", SERVICES)
def test_whoever_may_not_learns_nothing(asking: Asking, api: Api, service: str) -> None:
    url = getattr(asking.stack, f"{service}_url")
    table = _table(service)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = {(one.ok().method.upper(), one.ok().path): one.ok() for one in schema.get_all_operations()}
    assert {key for key in operations if key[1].startswith("/api/")} == table.keys()
    before = _state(asking, api)
    for (method, path), may in table.items():
        may_not = [holder for holder in asking.tokens if holder not in may]
        filled = path.replace("{index}", "0").replace("{root}", "ab" * 32)

        def ask(options: dict[str, Any], holders: list[str], method: str = method, filled: str = filled) -> None:
            for holder in holders:
                asking.refused(method, url, filled, holder, options)

        if path == "/api/v1/envelopes" or "chunks/process" in path:
            # The session is in the body: only a body that can be read gets as far as to be refused for its session.
            ask(_with_session(path), may_not)
            may_not.remove(ELSEWHERE)
        for number, case in enumerate(_made_up(operations[method, path])):
            if number == 1:  # requests without a token are limited, all of them together
                may_not.remove(NOBODY)
            ask(_options(case), may_not)
        if method in ("PUT", "POST"):
            ask({"content": b"{", "headers": {"content-type": "application/json"}}, may_not)
            ask({"content": b"\xff", "headers": {"content-type": "text/html", "content-digest": "none"}}, may_not)
    assert asking.statuses == {401, 403}
    assert _state(asking, api) == before
    print(f"{service}: {asking.asked} refusals so far")
    assert asking.asked > 500


def _with_session(path: str) -> dict[str, Any]:
    chunk = {"chunk_id": "a-0", "chunk_data_base64": ""}
    if path.endswith("envelopes"):
        return {"content": b"envelope"}
    if path.endswith("batch"):
        return {"json": {"session_id": "", "chunks": [chunk]}}
    return {"json": {"session_id": "", **chunk}}


def _state(asking: Asking, api: Api) -> Any:
    there = api.storage("GET", f"/api/v1/sessions/{asking.there}").json()
    absent = api.storage("GET", f"/api/v1/sessions/{asking.absent}").status_code
    assert absent == 404
    there.pop("anchor")
    return there, re.findall(r"^\w+", api.processor("GET", f"/api/v1/sessions/{asking.there}/content", "replay").text)
