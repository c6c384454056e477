"""The audit trail as a client reads and verifies it."""

from typing import Any

import pytest
from starlette.responses import JSONResponse

from sessions.client.aio import AsyncClient
from sessions.client.audit import AuditItem
from sessions.client.audit_check import check_events, verify_day
from sessions.client.errors import BadAnswerError
from sessions.client.verifying import Outcome, Report, Request
from sessions.core import merkle
from sessions.core.audit import Action, AuditEvent, from_json, session_of
from sessions.core.envelope import fingerprint, missing_leaf_input
from sessions.core.errors import AuditFormatError, VerificationError
from sessions.core.manifest import Manifest, metadata_sha256
from sessions.core.receipt import Anchor, Batch, Receipt
from tests.unit.client.fake import TOKEN, Fake
from tests.unit.storage.chunks import event

DAY = "2026-01-31"
NAME = session_of(DAY)
EVENTS = [event(0), event(1), event(2), event(3, action=Action.TRAIL_CLOSE)]


def _item(index: int, one: AuditEvent | dict[str, Any] | None) -> AuditItem:
    value = one.to_json() if isinstance(one, AuditEvent) else one
    known = one if isinstance(one, AuditEvent) else None
    return AuditItem(index=index, value=value, event=known)


def _items(events: list[AuditEvent]) -> list[AuditItem]:
    return [_item(index, one) for index, one in enumerate(events)]


def _manifest(events: list[AuditEvent], gone: tuple[int, ...] = (), **changes: Any) -> Manifest:
    leaves, total = [], 0
    for index, one in enumerate(events):
        data = one.to_bytes()
        total += 0 if index in gone else len(data)
        missing = merkle.leaf_hash(missing_leaf_input(NAME, index))
        leaves.append(missing if index in gone else fingerprint(NAME, index, data).leaf_hash)
    members: dict[str, Any] = {
        "session_id": NAME,
        "chunk_count": len(events),
        "missing": tuple((index, index) for index in gone),
        "plaintext_bytes": total,
        "envelope_bytes": total,
        "root": merkle.root(leaves),
        "opened_at": f"{DAY}T00:00:00.000Z",
        "sealed_at": "2026-02-01T00:05:00.000Z",
        "sealed_by": "idle",
        "metadata_sha256": metadata_sha256({}),
    }
    return Manifest(**members | changes)


MANIFEST = _manifest(EVENTS)


def test_the_events_that_were_sealed() -> None:
    check_events(MANIFEST, _items(EVENTS))
    check_events(_manifest(EVENTS, (1,)), [one for one in _items(EVENTS) if one.index != 1])


@pytest.mark.parametrize(
    ("manifest", "items", "said"),
    [
        (MANIFEST, _items(EVENTS)[:3], "event 3 is missing"),
        (MANIFEST, _items(EVENTS)[1:], "event 0 is missing"),
        (MANIFEST, [], "event 0 is missing"),
        (MANIFEST, _items([*EVENTS, event(4)]), "event 4 was inserted"),
        (MANIFEST, [*_items(EVENTS), _item(2**53 - 2, event(4))], "was inserted behind the 4"),
        (MANIFEST, [*_items(EVENTS)[:2], *_items(EVENTS)[1:]], "event 1 is there twice"),
        (MANIFEST, _items([EVENTS[0], event(9), *EVENTS[2:]]), "another root"),
        (MANIFEST, [_item(0, None), *_items(EVENTS)[1:]], "event 0 is altered: it is no event"),
        (MANIFEST, [_item(0, {"x": 2**60}), *_items(EVENTS)[1:]], "event 0 is altered: it has no canonical form"),
        (MANIFEST, [_item(0, {"x": "\ud800"}), *_items(EVENTS)[1:]], "event 0 is altered"),
        (_manifest(EVENTS, (1,)), _items(EVENTS), "event 1 was inserted: the day was sealed without it"),
        (_manifest(EVENTS, envelope_bytes=1), _items(EVENTS), "the manifest says 1"),
        (_manifest(EVENTS[:3]), _items(EVENTS[:3]), "before it was closed"),
        (_manifest([]), [], "before it was closed"),
        (_manifest(EVENTS, chunk_count=2**53 - 1, missing=((4, 2**53 - 2),)), _items(EVENTS), "more missing events"),
    ],
)
def test_other_events_than_those(manifest: Manifest, items: list[AuditItem], said: str) -> None:
    with pytest.raises(VerificationError, match=said):
        check_events(manifest, items)


def _report(manifest: Manifest, items: list[AuditItem], batch: bool = True) -> Report:
    leaf = manifest.leaf_hash()
    place = Batch(root=leaf, size=1, index=0, path=()) if batch else None
    return verify_day(DAY, items, Receipt(manifest=manifest, batch=place, anchor=Anchor()), Request(receipt=b""))


def test_a_report_of_a_day() -> None:
    report = _report(MANIFEST, _items(EVENTS))
    assert [step.outcome for step in report.steps] == [
        Outcome.PROVEN,
        Outcome.PROVEN,
        Outcome.PROVEN,
        Outcome.NOT_CHECKED,
    ]
    assert report.verdict == "proven in part"
    assert "4 events" in report.steps[0].text
    assert _report(MANIFEST, _items(EVENTS), batch=False).verdict == "proven in part"


def test_a_day_with_gaps_fails_whatever_else_is_proven() -> None:
    report = _report(_manifest(EVENTS, (1,)), [one for one in _items(EVENTS) if one.index != 1])
    assert report.verdict == "failed"
    assert [step.text for step in report.steps if step.outcome is Outcome.FAILED] == [
        "events 1-1 had been taken out before the day was sealed"
    ]


def test_a_receipt_of_something_else() -> None:
    report = _report(_manifest(EVENTS, session_id="a"), _items(EVENTS))
    assert (report.verdict, report.steps[-1].text) == ("failed", "the receipt is that of a")


@pytest.fixture
async def client(fake: Fake):
    async with AsyncClient(fake.url, fake.url, token=TOKEN) as client:
        yield client


def _day(**changes: Any) -> dict[str, Any]:
    members = {
        "day": DAY,
        "session_id": NAME,
        "status": "open",
        "events": None,
        "sealed_at": None,
        "root": None,
        "anchor": None,
    }
    return members | changes


async def test_days(client: AsyncClient, fake: Fake) -> None:
    older = _day(day="2026-01-30", session_id=session_of("2026-01-30"), status="sealed", events=3, root="ab" * 32)
    fake.fault(
        "GET",
        "/audit-days",
        JSONResponse({"days": [_day(new=1)], "next_cursor": DAY}),
        JSONResponse({"days": [older], "next_cursor": None}),
    )
    found = [one async for one in client.audit_days()]
    assert [(one.day, one.events) for one in found] == [(DAY, None), ("2026-01-30", 3)]


@pytest.mark.parametrize(
    "days",
    [[_day(session_id="a")], [_day(day="x")], [_day(status="odd")], [_day(events="3")], [_day(root="x")], [1], 1],
)
async def test_days_that_are_none(client: AsyncClient, fake: Fake, days: Any) -> None:
    fake.fault("GET", "/audit-days", JSONResponse({"days": days, "next_cursor": None}))
    with pytest.raises(BadAnswerError):
        [one async for one in client.audit_days()]


async def test_events(client: AsyncClient, fake: Fake) -> None:
    newer = event().to_json() | {"action": "session.invented"}
    places = [
        {"index": 0, "event": event().to_json()},
        {"index": 1, "event": newer},
        {"index": 2, "event": None},
    ]
    fake.fault(
        "GET",
        "/audit-events",
        JSONResponse({"events": places[:2], "next_cursor": "2"}),
        JSONResponse({"events": places[2:], "next_cursor": None}),
    )
    found = [one async for one in client.audit_events(DAY)]
    assert [one.event for one in found] == [from_json(event().to_json()), None, None]
    assert [one.to_json() for one in found] == places


@pytest.mark.parametrize("place", [{"index": -1, "event": None}, {"index": 0, "event": 1}, {"event": None}, "x"])
async def test_events_that_are_none(client: AsyncClient, fake: Fake, place: Any) -> None:
    fake.fault("GET", "/audit-events", JSONResponse({"events": [place], "next_cursor": None}))
    with pytest.raises(BadAnswerError):
        [one async for one in client.audit_events(DAY)]


async def test_what_is_no_day_is_not_asked_for(client: AsyncClient, fake: Fake) -> None:
    with pytest.raises(AuditFormatError):
        [one async for one in client.audit_events("yesterday")]
    assert fake.requests == []
