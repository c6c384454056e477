"""Checks the events of a day against its manifest, and that against the chain. No key is needed, and no trust."""

from bisect import bisect_right
from collections.abc import Iterable

import rfc8785

from sessions.client import verifying
from sessions.client.audit import AuditItem
from sessions.client.envelope_check import MAX_MISSING_LEAVES
from sessions.client.verifying import Outcome, Report, Request
from sessions.core import audit
from sessions.core.audit import Action
from sessions.core.envelope import fingerprint, missing_leaf_input
from sessions.core.errors import VerificationError
from sessions.core.manifest import Manifest
from sessions.core.merkle import Frontier, leaf_hash
from sessions.core.receipt import Receipt


def verify_day(day: str, items: Iterable[AuditItem], receipt: Receipt, request: Request) -> Report:
    """Verify a day that was sealed: its events, its manifest, and with a node of the chain its anchor.

    Of `request` the node and the addresses count.

    Raises:
        AuditFormatError: `day` is none.
        NodeError, UnreachableError: the node did not do its part; nothing is said about the trail.
    """
    report, said = Report(receipt=receipt), receipt.manifest
    if said.session_id != audit.session_of(day):
        report.add(Outcome.FAILED, f"the receipt is that of {said.session_id}")
        return report
    text = f"the trail of {day} has {said.chunk_count} events, and was sealed {said.sealed_at} by the service"
    report.add(Outcome.PROVEN, f"the receipt is well-formed. It states: {text}")
    if said.missing:
        gaps = ", ".join(f"{first}-{last}" for first, last in said.missing[:10])
        report.add(Outcome.FAILED, f"events {gaps} had been taken out before the day was sealed")
    report.check(
        "the events are exactly those that were sealed: root, count and bytes agree, none is missing, altered or "
        "inserted, and the last one closes the day",
        lambda: check_events(said, items),
    )
    verifying.batch(report, receipt, request)
    return report


def check_events(manifest: Manifest, items: Iterable[AuditItem]) -> None:
    """Check that these are all events that a manifest stands for, in order, and no others.

    Raises:
        VerificationError: one is missing, altered or inserted; the first such is named, if it can be told.
    """
    if sum(last - first + 1 for first, last in manifest.missing) > MAX_MISSING_LEAVES:
        raise VerificationError("the manifest claims more missing events than anybody would hash")
    name, tree, total, closed = manifest.session_id, Frontier(), 0, False
    for item in items:
        if item.index < tree.size:
            raise VerificationError(f"event {item.index} is there twice, or out of order")
        while tree.size < item.index:
            _gap(manifest, tree)
        if item.index >= manifest.chunk_count:
            raise VerificationError(f"event {item.index} was inserted: the seal covers {manifest.chunk_count} events")
        if _gone(manifest, item.index):
            raise VerificationError(f"event {item.index} was inserted: the day was sealed without it")
        if item.value is None:
            raise VerificationError(f"event {item.index} is altered: it is no event")
        try:
            data = rfc8785.dumps(item.value)
        except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError):
            raise VerificationError(f"event {item.index} is altered: it has no canonical form") from None
        total += len(data)
        tree.append(fingerprint(name, item.index, data).leaf_hash)
        closed = item.value.get("action") == Action.TRAIL_CLOSE
    while tree.size < manifest.chunk_count:
        _gap(manifest, tree)
    if tree.root() != manifest.root:
        raise VerificationError("an event is altered: the events lead to another root")
    if total != manifest.envelope_bytes:
        raise VerificationError(f"the events have {total} bytes, the manifest says {manifest.envelope_bytes}")
    if not closed:
        raise VerificationError("the day was sealed before it was closed: its last events are missing")


def _gone(manifest: Manifest, index: int) -> bool:
    begun = bisect_right(manifest.missing, index, key=lambda gap: gap[0])
    return bool(begun) and index <= manifest.missing[begun - 1][1]


def _gap(manifest: Manifest, tree: Frontier) -> None:
    index = tree.size
    if index < manifest.chunk_count and not _gone(manifest, index):
        raise VerificationError(f"event {index} is missing")
    if index >= manifest.chunk_count:
        raise VerificationError(f"an event was inserted behind the {manifest.chunk_count} that the seal covers")
    tree.append(leaf_hash(missing_leaf_input(manifest.session_id, index)))
