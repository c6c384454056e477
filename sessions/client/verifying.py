"""Verifies a receipt, step by step, and says in words what each step proves and what was not checked.

It takes a receipt file and, for more, a folder of envelopes and a node of the chain. It imports `sessions.core` and the
JSON-RPC client alone: no service is asked, and none of their code is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from sessions.client import rpc
from sessions.client.envelope_check import check_envelopes
from sessions.core import receipt as receipts
from sessions.core.audit import day_of
from sessions.core.errors import CoreError, FormatError, VerificationError
from sessions.core.manifest import metadata_sha256
from sessions.core.receipt import AnchorState, Receipt
from sessions.core.strict import loads

_UNKNOWN: Final = {
    receipts.BLOCK: "block of that number",
    receipts.OUTCOME: "receipt of the transaction",
    receipts.TRANSACTION: "transaction of that hash",
}


class Outcome(StrEnum):
    """What a step came to."""

    PROVEN = "proven"
    NOTE = "note"
    """Nothing to prove; something that whoever relies on the receipt should know."""
    NOT_CHECKED = "not-checked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at, in a sentence."""

    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to verify, and with what. Addresses have 20 bytes; None leaves a check out."""

    receipt: bytes
    envelopes: Path | None = None
    metadata: bytes | None = None
    node_url: str | None = None
    publisher: bytes | None = None
    contract: bytes | None = None


@dataclass(slots=True)
class Report:
    """The steps, in order, and the verdict. `receipt` is None when it could not be read."""

    steps: list[Step] = field(default_factory=list)
    receipt: Receipt | None = None
    anchor_proven: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything contradicts the receipt."""
        return any(step.outcome is Outcome.FAILED for step in self.steps)

    @property
    def verdict(self) -> str:
        """`failed`, `proven` (with the anchor) or `proven in part`."""
        return "failed" if self.failed else "proven" if self.anchor_proven else "proven in part"

    def add(self, outcome: Outcome, text: str) -> None:
        """Add a step."""
        self.steps.append(Step(outcome, text))

    def check(self, text: str, act: Callable[[], object]) -> bool:
        """Add a step that is proven unless `act` raises; whether it was."""
        try:
            act()
        except CoreError as error:
            self.add(Outcome.FAILED, f"{text}: {error}")
            return False
        self.add(Outcome.PROVEN, text)
        return True


def verify(request: Request) -> Report:
    """Verify all that can be with what is given.

    Raises:
        NodeError, UnreachableError: the node did not do its part; nothing is said about the receipt.
        OSError: the folder of envelopes cannot be read.
    """
    report = Report()
    try:
        receipt = report.receipt = receipts.from_bytes(request.receipt)
    except (CoreError, UnicodeDecodeError) as error:
        report.add(Outcome.FAILED, f"the file is not a receipt: {error}")
        return report
    _statement(report, receipt)
    _recording(report, receipt, request)
    batch(report, receipt, request)
    return report


def _statement(report: Report, receipt: Receipt) -> None:
    said = receipt.manifest
    report.add(
        Outcome.PROVEN,
        f"the receipt is well-formed. It states: session {said.session_id}, {said.chunk_count} chunks, "
        f"{said.plaintext_bytes} bytes, opened {said.opened_at}, sealed {said.sealed_at} by "
        + ("the recorder" if said.sealed_by == "recorder" else _by_service(said.session_id)),
    )
    if said.missing:
        shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in said.missing[:10])
        more = f" and {len(said.missing) - 10} more ranges" if len(said.missing) > 10 else ""  # noqa: PLR2004
        report.add(Outcome.NOTE, f"the session was sealed with gaps: chunks {shown}{more} never arrived")


def _by_service(session: str) -> str:
    return "the service, " + ("at the day's end" if day_of(session) else "after the recorder fell silent")


def _recording(report: Report, receipt: Receipt, request: Request) -> None:
    said, folder, metadata = receipt.manifest, request.envelopes, request.metadata
    if folder is None:
        report.add(
            Outcome.NOT_CHECKED,
            "not checked: that any recording you hold is the one of this receipt (no --recording-envelopes)",
        )
    else:
        report.check(
            "the envelopes are exactly those that were sealed: count, bytes and root agree, none is missing, "
            "there twice, foreign or altered",
            lambda: check_envelopes(said, folder),
        )
    if metadata is None:
        report.add(Outcome.NOT_CHECKED, "not checked: the recorder's metadata (the receipt holds only its hash)")
    else:
        report.check("the metadata is that of the session", lambda: _check_metadata(receipt, metadata))


def _check_metadata(receipt: Receipt, data: bytes) -> None:
    value = loads(data, "metadata", FormatError)
    if not isinstance(value, dict) or metadata_sha256(value) != receipt.manifest.metadata_sha256:
        raise VerificationError("its hash is not the one in the manifest")


def batch(report: Report, receipt: Receipt, request: Request) -> None:
    """Add what the batch and, with a node, the chain prove; see `verify` for the errors."""
    place, anchor = receipt.batch, receipt.anchor
    if place is None:
        report.add(
            Outcome.NOT_CHECKED,
            "not anchored yet: the session is in no batch, so nothing but the service's word says when it was sealed;"
            " fetch the receipt again later",
        )
        return
    text = f"the statement is session {place.index + 1} of {place.size} in the batch with root {place.root.hex()}"
    if not report.check(text, lambda: receipts.verify_batch(receipt)):
        return
    for name, expected, stated in (
        ("publisher", request.publisher, anchor.publisher),
        ("contract", request.contract, anchor.contract),
    ):
        if expected is not None and stated is not None and expected != stated:
            report.add(
                Outcome.FAILED, f"the {name} in the receipt is 0x{stated.hex()}, expected was 0x{expected.hex()}"
            )
    if anchor.state not in (AnchorState.INCLUDED, AnchorState.CONFIRMED):
        report.add(
            Outcome.NOT_CHECKED, f"not anchored yet: the anchor is {anchor.state.value}; fetch the receipt again later"
        )
    elif request.node_url is None:
        report.add(Outcome.NOT_CHECKED, "not checked: that the batch root is on the chain (no --rpc)")
        _publisher(report, receipt, request)
    elif not report.failed:
        _chain(report, receipt, request.node_url)
        if not report.failed:
            _publisher(report, receipt, request)


def _chain(report: Report, receipt: Receipt, node_url: str) -> None:
    anchor, batch = receipt.anchor, receipt.batch
    assert batch is not None
    if None in (anchor.contract, anchor.publisher, anchor.transaction):
        report.add(
            Outcome.FAILED, f"the anchor is {anchor.state.value} and lacks its contract, publisher or transaction"
        )
        return
    with rpc.JsonRpc(node_url) as node:
        facts = rpc.gather(node, anchor, batch.root)
        try:
            seconds = receipts.verify_anchor(receipt, facts)
        except VerificationError as error:
            report.add(Outcome.FAILED, f"the anchor does not hold: {error}")
            return
        known = f" in block {anchor.block_number}" if not facts.unknown else ""
        report.add(
            Outcome.PROVEN,
            f"the batch root is on chain {anchor.chain_id}{known}, in a genuine LucidAnchors "
            f"contract: all of the above existed before {_utc(seconds)}, and was not changed since",
        )
        if facts.unknown:
            report.add(
                Outcome.NOT_CHECKED,
                "the transaction was not checked there: name another node. This one has no "
                f"{' and no '.join(_UNKNOWN[part] for part in sorted(facts.unknown))}, as nodes that do not keep all "
                "history",
            )
            return
        report.anchor_proven = True
        above, final = rpc.depth(node, facts.transaction_block or 0)
    if final:
        report.add(Outcome.PROVEN, "the block is final")
    else:
        report.add(Outcome.NOTE, f"the block has {above} on top and is not final (or this chain does not say so)")


def _publisher(report: Report, receipt: Receipt, request: Request) -> None:
    stated = receipt.anchor.publisher
    if stated is None:
        return
    proven = "published by" if report.anchor_proven else "said to be published by"
    if request.publisher is None:
        report.add(
            Outcome.NOTE,
            f"{proven} 0x{stated.hex()}: whether that is the operator you expect, only you can tell (--publisher)",
        )
    elif report.anchor_proven:
        report.add(Outcome.PROVEN, "the publisher is the one that you expect")


def _utc(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds} of the Unix epoch"
