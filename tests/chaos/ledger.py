"""What recorders were told: the one thing that the services are held to."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.content import Plan


@dataclass(slots=True)
class Ledger:
    """All acknowledgements of a run, and everything that was answered and should not have been."""

    plans: dict[str, Plan] = field(default_factory=dict)
    stored: dict[str, dict[int, str]] = field(default_factory=dict)
    """By session and index, the envelope's SHA-256 of a chunk that was acknowledged as stored."""
    spooled: dict[str, set[int]] = field(default_factory=dict)
    """Chunks that were acknowledged as spooled: their envelope may still turn out to be another one's equal."""
    seals: dict[str, str] = field(default_factory=dict)
    """By session, the SHA-256 of the manifest that the recorder was given."""
    queued: set[str] = field(default_factory=set)
    """Sessions whose seal was answered 202 to a recorder that did not ask again."""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By session, the metadata that were acknowledged."""
    given_up: set[str] = field(default_factory=set)
    """Sessions that a recorder left because it was refused what it should have got; `violations` has the refusal."""
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    longest_stall_seconds: float = 0.0
    """From the first attempt at a chunk to its acknowledgement."""

    def begin(self, plan: Plan) -> None:
        """Note that a session is being recorded."""
        self.plans[plan.session_id] = plan
        self.stored.setdefault(plan.session_id, {})
        self.spooled.setdefault(plan.session_id, set())

    def acknowledged(self, plan: Plan, index: int, answer: dict[str, object], begun: float) -> None:
        """Note what a recorder was told of a chunk; `begun` is when it first asked, of the monotonic clock."""
        session, digest = plan.session_id, str(answer["envelope_sha256"])
        self.longest_stall_seconds = max(self.longest_stall_seconds, time.monotonic() - begun)
        self.counts[f"acknowledged {answer['durability']}"] += 1
        if answer["durability"] == "spooled":
            self.spooled[session].add(index)
        elif self.stored[session].setdefault(index, digest) != digest:
            self.violations.append(f"{session}/{index}: two acknowledgements name different envelopes")

    def opened(self, plan: Plan) -> None:
        """Note that the session's metadata were acknowledged."""
        assert plan.metadata is not None
        self.metadata[plan.session_id] = plan.metadata

    def sealed(self, plan: Plan, manifest_sha256: str) -> None:
        """Note the answer to a seal."""
        if self.seals.setdefault(plan.session_id, manifest_sha256) != manifest_sha256:
            self.violations.append(f"{plan.session_id}: two seals name different manifests")

    def of_session(self, session: str) -> set[int]:
        """The chunks of a session that were acknowledged."""
        return self.stored[session].keys() | self.spooled[session]

    def acknowledged_chunks(self) -> int:
        """How many chunks were acknowledged, each counted once."""
        return sum(len(self.of_session(one)) for one in self.plans)
