"""How anchoring is, for health and metrics."""

from dataclasses import dataclass
from typing import Final

SUPERSEDED_ROUNDS: Final = 2
"""Rounds in a row that a newer leader may end before that counts as a failure."""


@dataclass
class AnchorerStatus:
    """What the anchorer says of itself. Counts are of this process.

    Attributes:
        leader: Whether this replica acts.
        chain_ok: Whether the chain answered when it was asked last; None before that.
        last_error: Why it did not, or what else went wrong in the last round; None when all went well.
        balance_wei: What the publisher's account held when it was asked last, in wei.
        head_block: The chain's newest block when a batch was looked for last; None before that.
        superseded_rounds: Rounds ended by a newer leader's writes since the last one that this replica led to its end.
    """

    leader: bool = False
    chain_ok: bool | None = None
    last_error: str | None = None
    balance_wei: int | None = None
    head_block: int | None = None
    batches_made: int = 0
    sessions_batched: int = 0
    transactions_signed: int = 0
    batches_included: int = 0
    batches_confirmed: int = 0
    reorganisations: int = 0
    failures: int = 0
    superseded_rounds: int = 0

    def made(self, sessions: int) -> None:
        """Count a batch of that many sessions."""
        self.batches_made += 1
        self.sessions_batched += sessions

    def failed(self, error: Exception, *, chain_ok: bool | None) -> None:
        """Note that a round failed."""
        self.failures += 1
        self.chain_ok, self.last_error = chain_ok, f"{type(error).__name__}: {error}"[:500]

    def superseded(self, error: Exception) -> None:
        """Note that a round found a newer leader's writes. A third one in a row is a failure: nobody gets ahead."""
        self.leader = False
        self.superseded_rounds += 1
        if self.superseded_rounds > SUPERSEDED_ROUNDS:
            self.failed(error, chain_ok=self.chain_ok)

    def succeeded(self) -> None:
        """Note that a round came to its end."""
        self.last_error = None
        if self.leader:
            self.superseded_rounds = 0
