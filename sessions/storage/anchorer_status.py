"""How anchoring is, for health and metrics."""

from dataclasses import dataclass


@dataclass
class AnchorerStatus:
    """What the anchorer says of itself. Counts are of this process.

    Attributes:
        leader: Whether this replica acts.
        chain_ok: Whether the chain answered when it was asked last; None before that.
        last_error: Why it did not, or what else went wrong in the last round; None when all went well.
        balance_wei: What the publisher's account held when it was asked last, in wei.
        head_block: The chain's newest block when a batch was looked for last; None before that.
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

    def made(self, sessions: int) -> None:
        """Count a batch of that many sessions."""
        self.batches_made += 1
        self.sessions_batched += sessions

    def failed(self, error: str, *, chain_ok: bool | None) -> None:
        """Note that a round failed."""
        self.failures += 1
        self.chain_ok, self.last_error = chain_ok, error
