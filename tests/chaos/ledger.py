"""What recorders were told: the one thing that the services are held to."""

import time
from collections import Counter
from dataclasses import dataclass, field

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

    def sealed(self, plan: Plan, manifest_sha256: str) -> None:
        """Note the answer to a seal."""
        if self.seals.setdefault(plan.session_id, manifest_sha256) != manifest_sha256:
            self.violations.append(f"{plan.session_id}: two seals name different manifests")

    def acknowledged_chunks(self) -> int:
        """How many chunks were acknowledged, each counted once."""
        return sum(len(self.stored[one].keys() | self.spooled[one]) for one in self.plans)
