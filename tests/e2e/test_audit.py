"""The audit trail on the running stack: each act leaves its event, and what is done to the trail itself is found."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
from bson import Binary, Int64
from pymongo import MongoClient

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.core.audit import session_of
from sessions.runtime.times import now
from sessions.storage.audit_trail import Trail
from sessions.storage.mongo import connect
from sessions.storage.mongo_audit import MongoEvents
from sessions.storage.mongo_sessions import MongoSessions
from tests.e2e.conftest import Api, session_name
from tests.e2e.test_access import file  # noqa: F401 - a fixture
from tests.e2e.test_cli import Shell, narrow
from tests.unit.storage.chunks import event

SESSIONS = "/api/v1/sessions"
Told = list[tuple[str, str | None, str, str | None, str, str | None]]


class Book:
    """The trail of today, as an auditor reads it."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def events(self) -> list[dict[str, Any]]:
        day, found, cursor = now().date().isoformat(), [], "0"
        while cursor is not None:
            answer = self.api.storage("GET", f"/api/v1/audit-events?day={day}&limit=1000&cursor={cursor}")
            assert answer.status_code == 200, answer.text
            found += answer.json()["events"]
            cursor = answer.json()["next_cursor"]
        assert [one["index"] for one in found] == list(range(len(found)))
        return [one["event"] for one in found]

    def of(self, request_id: str) -> Told:
        return [
            (one["service"], _role(one["principal"]), one["action"], one["session_id"], one["outcome"], one["code"])
            for one in self.events()
            if one["request_id"] == request_id
        ]

    def until(self, request_id: str, expected: Told) -> None:
        """Refusals come within a second or two; what came before is in order."""
        deadline = time.monotonic() + 5
        while (told := self.of(request_id)) != expected:
            assert time.monotonic() < deadline, told
            time.sleep(0.1)


def _role(principal: str | None) -> str | None:
    return principal and principal.removeprefix("stack-")


@pytest.fixture(scope="module")
def book(api: Api) -> Book:
    return Book(api)


@pytest.fixture
def database(stack: Stack) -> Iterator[Any]:
    with MongoClient(stack.mongodb_url) as client:
        yield client[stack.env["storage"]["MONGODB_DATABASE"]]


@pytest.fixture(scope="module")
def sealed(api: Api) -> str:
    name = session_name("audited")
    api.record(name, [b"one", b"two"])
    return name


P, S = "chunk-processor", "session-storage"
# service, method, path, role, options, status; then what the trail has of it: service, action, outcome, code
ACTS: list[tuple[str, str, str, str | None, dict[str, Any], int, list[tuple[str, str, str, str | None]]]] = [
    (P, "GET", "/{sealed}/chunks/0", "replay", {}, 200, [(P, "chunk.read", "allowed", None)]),
    (P, "GET", "/{sealed}/content", "replay", {}, 200, [(P, "content.read", "allowed", None)]),
    (P, "GET", "/{sealed}/chunks/9", "replay", {}, 404, [(P, "chunk.read", "refused", "chunk-not-found")]),
    (P, "GET", "/{sealed}/content", "record", {}, 403, [(P, "content.read", "refused", "forbidden")]),
    (
        S,
        "PUT",
        "/{sealed}/hold",
        "admin",
        {"json": {"held": True}},
        200,
        [(S, "session.hold", "begun", None), (S, "session.hold", "allowed", None)],
    ),
    (
        P,
        "DELETE",
        "/{sealed}",
        "admin",
        {},
        409,
        [
            (S, "session.shred", "begun", None),
            (S, "session.shred", "refused", "session-held"),
            (P, "session.shred", "refused", "session-held"),
        ],
    ),
    (P, "DELETE", "/{sealed}", "replay", {}, 403, [(P, "session.shred", "refused", "forbidden")]),
    (
        S,
        "PUT",
        "/{sealed}/hold",
        "admin",
        {"json": {"held": False}},
        200,
        [(S, "session.release", "begun", None), (S, "session.release", "allowed", None)],
    ),
    (S, "PUT", "/{sealed}/hold", "admin", {"json": {"x": 1}}, 400, [(S, "session.hold", "refused", "invalid-request")]),
    (
        S,
        "PUT",
        "/{sealed}/retention",
        "admin",
        {"json": {"retain_days": 3}},
        200,
        [(S, "session.retain", "begun", None), (S, "session.retain", "allowed", None)],
    ),
    (
        S,
        "PUT",
        "/{sealed}/retention",
        "admin",
        {"json": {}},
        200,
        [(S, "session.retain", "begun", None), (S, "session.retain", "allowed", None)],
    ),
    (S, "GET", "/{sealed}/keys", "admin", {}, 200, [(S, "keys.export", "allowed", None)]),
    (S, "GET", "/{sealed}/keys", "audit", {}, 403, [(S, "keys.export", "refused", "forbidden")]),
    (S, "GET", "/{sealed}/manifest", "record", {}, 403, [(S, "request.refused", "refused", "forbidden")]),
    (S, "GET", "/{sealed}/manifest", "audit", {}, 200, []),
    (
        P,
        "DELETE",
        "/{sealed}",
        "admin",
        {},
        200,
        [(S, "session.shred", "begun", None), (S, "session.shred", "allowed", None)],
    ),
    (P, "GET", "/{sealed}/content", "replay", {}, 410, [(P, "content.read", "refused", "session-shredded")]),
]


def test_each_act_on_a_session_leaves_its_event(api: Api, book: Book, sealed: str) -> None:
    for number, (service, method, path, role, options, status, expected) in enumerate(ACTS):
        wanted = f"act-{number}-{token_hex(6)}"
        send = api.processor if service == P else api.storage
        target = SESSIONS + path.format(sealed=sealed)
        answer = send(method, target, role, headers={"X-Request-ID": wanted}, **options)
        assert answer.status_code == status, answer.text
        if status == 200:  # what was allowed is there before the answer is
            assert len(book.of(wanted)) == len(expected)
        told = [(by, role, action, sealed, outcome, code) for by, action, outcome, code in expected]
        deadline = time.monotonic() + 5
        while sorted(map(str, book.of(wanted))) != sorted(map(str, told)):
            assert time.monotonic() < deadline, (path, book.of(wanted))
            time.sleep(0.1)


def test_acts_that_are_of_no_session(api: Api, book: Book) -> None:
    cases: list[tuple[Callable[..., Any], str, str, str, int, Told]] = [
        (api.processor, "GET", "/api/v1/keys", "admin", 200, [(P, "admin", "keys.status", None, "allowed", None)]),
        (
            api.processor,
            "POST",
            "/api/v1/keys/rotate",
            "admin",
            200,
            [
                (P, "admin", "keys.rotate", None, "begun", None),
                (P, "admin", "keys.rotate", None, "allowed", None),
            ],
        ),
        (
            api.processor,
            "POST",
            "/api/v1/keys/rotate",
            "record",
            403,
            [(P, "record", "keys.rotate", None, "refused", "forbidden")],
        ),
        (
            api.storage,
            "POST",
            "/api/v1/scrub",
            "replay",
            403,
            [(S, "replay", "scrub.request", None, "refused", "forbidden")],
        ),
    ]
    for send, method, path, role, status, expected in cases:
        wanted = f"act-{token_hex(6)}"
        answer = send(method, path, role, headers={"X-Request-ID": wanted})
        assert answer.status_code == status
        book.until(wanted, expected)


def test_recording_leaves_no_event_and_a_reserved_id_one(api: Api, book: Book) -> None:
    wanted, other = f"put-{token_hex(6)}", f"put-{token_hex(6)}"
    name = session_name("audited")
    assert api.put_chunk(name, 0, b"x", headers={"X-Request-ID": wanted}).status_code == 201
    refused = api.put_chunk("lucid-audit-x", 0, b"x", headers={"X-Request-ID": other})
    assert (refused.status_code, refused.json()["code"]) == (403, "session-reserved")
    deadline = time.monotonic() + 5
    while not (told := book.of(other)):
        assert time.monotonic() < deadline
    assert told == [(P, "record", "request.refused", "lucid-audit-x", "refused", "session-reserved")]
    assert book.of(wanted) == []


def test_scrubs_and_what_they_find(api: Api, book: Book, database: Any) -> None:
    name, wanted = session_name("audited"), f"scrub-{token_hex(6)}"
    api.record(name, [b"one"])
    database["bodies"].delete_many({"_id.s": name})
    headers = {"X-Request-ID": wanted}
    answer = api.storage("POST", "/api/v1/scrub", "audit", json={"session_id": name}, headers=headers)
    assert answer.status_code == 200
    assert book.of(wanted) == [
        (S, None, "scrub.finding", name, "failed", "missing"),
        (S, "audit", "scrub.request", name, "allowed", None),
    ]


def test_starts_and_tokens_that_are_read_again(api: Api, book: Book, stack: Stack, file: Any) -> None:  # noqa: F811
    def by_service(action: str) -> set[tuple[str, str]]:
        return {(one["service"], one["outcome"]) for one in book.events() if one["action"] == action}

    assert by_service("service.start") == {(P, "allowed"), (S, "allowed")}
    before = file.read_text()
    file.write_text("recorder roles=king\n")
    assert wait_until(lambda: by_service("tokens.reload") >= {(P, "failed"), (S, "failed")}, 10)
    file.write_text(before)
    assert wait_until(lambda: by_service("tokens.reload") >= {(P, "allowed"), (S, "allowed")}, 10)


def test_a_flood_of_wrong_tokens_is_a_few_events_that_count_it(api: Api, book: Book) -> None:
    def counted() -> tuple[int, int]:
        found = [one for one in book.events() if one["principal"] is None and one["service"] == P]
        refused = [one for one in found if one["action"] == "request.refused"]
        assert {one["session_id"] for one in refused} <= {None}
        return len(refused), sum(one["count"] for one in refused)

    time.sleep(1.5)
    events, requests = counted()
    started = time.monotonic()
    for number in range(600):
        answer = api.processor("PUT", f"{SESSIONS}/flood-{number}/chunks/0", "nobody", content=b"x")
        assert answer.status_code in (401, 429)
    seconds = time.monotonic() - started
    assert wait_until(lambda: counted()[1] >= requests + 600, 5)
    assert counted()[1] == requests + 600
    assert counted()[0] - events <= 2 * (seconds + 3)


@contextmanager
def _no_inserts(stack: Stack) -> Iterator[None]:
    """MongoDB refuses every insert into the trail."""
    name = f"{stack.env['storage']['MONGODB_DATABASE']}.audit_events"
    data = {"failCommands": ["insert"], "errorCode": 14, "namespace": name}
    with MongoClient(stack.mongodb_url) as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        try:
            yield
        finally:
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def test_what_cannot_be_recorded_is_not_served_and_recording_goes_on(api: Api, book: Book, stack: Stack) -> None:
    name, wanted = session_name("audited"), f"away-{token_hex(6)}"
    api.record(name, [b"one"])
    headers = {"X-Request-ID": wanted}
    with _no_inserts(stack):
        for send, method, path, role in (
            (api.processor, "GET", f"{SESSIONS}/{name}/content", "replay"),
            (api.processor, "GET", f"{SESSIONS}/{name}/chunks/0", "replay"),
            (api.processor, "DELETE", f"{SESSIONS}/{name}", "admin"),
            (api.storage, "GET", f"{SESSIONS}/{name}/keys", "admin"),
        ):
            answer = send(method, path, role, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "audit-unavailable")
            assert (answer.content == b"one", answer.headers["retry-after"]) == (False, "1")
        assert api.put_chunk(f"{name}-2", 0, b"x").status_code == 201
        health = lambda: api.storage("GET", "/health", None).json()["checks"]["audit"]["status"]  # noqa: E731
        assert wait_until(lambda: health() == "degraded", 5)
    assert api.processor("GET", f"{SESSIONS}/{name}/content", "replay").content == b"one"
    assert wait_until(lambda: len(book.of(wanted)) == 5, 15)
    assert {one[4:] for one in book.of(wanted)} == {("failed", "audit-unavailable")}


def _write(stack: Stack, day: datetime, count: int) -> None:
    """Events of another day, written as storage writes them."""

    async def write() -> None:
        client, db = connect(stack.mongodb_url, stack.env["storage"]["MONGODB_DATABASE"])
        trail = Trail(MongoEvents(db), MongoSessions(db), "session-storage", lambda: day)
        await trail.write([event(number) for number in range(count)])
        await client.close()

    asyncio.run(write())


def test_a_day_is_sealed_anchored_and_verified_and_every_attack_is_found(stack: Stack, api: Api, database: Any) -> None:
    shell = Shell(stack)
    before = datetime.now(UTC) - timedelta(days=2)
    day, name = before.date().isoformat(), session_of(before.date().isoformat())
    today = datetime.now(UTC).date().isoformat()
    unsealed = shell("audit", "verify", today, role="audit", expect=8)
    assert f"{today} is not sealed yet" in unsealed.stderr
    _write(stack, before, 3)

    def state() -> str:
        anchors = [
            one["anchor"] for one in api.storage("GET", "/api/v1/audit-days").json()["days"] if one["day"] == day
        ]
        return anchors[0]["state"] if anchors and anchors[0] else ""

    assert wait_until(lambda: state() == "confirmed", 60)
    listed = shell("audit", "list", role="admin").stdout
    narrow(listed)
    assert any(line.split()[:3] == [day, "sealed", "4"] for line in listed.splitlines()), listed
    shown = shell("audit", "show", day, role="audit").stdout
    narrow(shown)
    assert "chunk.read allowed, session a, by replay-1" in shown
    assert "trail.close allowed" in shown
    items = json.loads(shell("audit", "show", day, "--json", role="audit").stdout)["events"]
    assert [one["event"]["request_id"] for one in items] == ["r-0", "r-1", "r-2", None]

    well = shell("audit", "verify", day, "--rpc", stack.rpc_url, "--publisher", stack.publisher, role="audit")
    narrow("\n".join(line for line in well.stdout.splitlines() if "0x" not in line and "root" not in line))
    assert "verdict: proven" in well.stdout
    proof = shell("proof", name, "1", role="audit").stdout
    assert json.loads(proof)["tree_size"] == 4
    receipt = stack.folder / "audit-receipt.json"
    shell("receipt", name, "-o", receipt, role="audit")
    assert "verdict: proven" in shell("verify", receipt, "--rpc", stack.rpc_url).stdout

    events = database["audit_events"]
    stored = list(events.find({"_id.s": name}, sort=[("_id", 1)]))
    other = Binary(event(1, principal="nobody").to_bytes())
    inserted = {"_id": {"s": name, "i": Int64(4)}, "event": other}
    attacks: list[tuple[Callable[[], Any], str]] = [
        (lambda: events.update_one({"_id": stored[1]["_id"]}, {"$set": {"event": other}}), "an event is altered"),
        (lambda: events.delete_one({"_id": stored[1]["_id"]}), "event 1 is missing"),
        (lambda: events.insert_one(inserted), "event 4 was inserted"),
    ]
    for attack, said in attacks:
        attack()
        found = shell("audit", "verify", day, "--json", role="audit", expect=7)
        report = json.loads(found.stdout)
        assert report["verdict"] == "failed"
        assert any(said in step["text"] for step in report["steps"] if step["outcome"] == "failed"), report
        shell("scrub", "--session", name, role="audit", expect=7)
        events.delete_many({"_id.s": name})
        events.insert_many(stored)
    assert "verdict: proven" in shell("audit", "verify", day, "--rpc", stack.rpc_url, role="audit").stdout
    assert api.storage("GET", "/metrics", None).text.count("lucid_audit_oldest_unsealed_seconds 0.0") == 1
    shell("audit", "verify", day, role="record", expect=4)
    shell("audit", "verify", "2026-02-30", role="audit", expect=2)
