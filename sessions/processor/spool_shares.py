"""What each token holds of the spool. The last of the room is for tokens that hold little: no one takes all of it."""

from dataclasses import dataclass


@dataclass(slots=True)
class Holding:
    """Entries of one token that are in the spool, or on their way there. `orders` of them are orders to seal."""

    size_bytes: int = 0
    entries: int = 0
    orders: int = 0


class Shares:
    """Counts by the name of the token; None is one for all entries that do not name their sender."""

    def __init__(self) -> None:
        self._holdings: dict[str | None, Holding] = {}

    def of(self, by: str | None) -> Holding:
        """Return what a token holds."""
        return self._holdings.get(by) or Holding()

    def take(self, by: str | None, size_bytes: int, *, order: bool = False) -> None:
        """Count an entry."""
        holding = self._holdings.setdefault(by, Holding())
        holding.size_bytes += size_bytes
        holding.entries += 1
        holding.orders += order

    def give(self, by: str | None, size_bytes: int, *, order: bool = False) -> None:
        """Count an entry no longer."""
        holding = self._holdings[by]
        holding.size_bytes -= size_bytes
        holding.entries -= 1
        holding.orders -= order
        if not holding.entries:
            del self._holdings[by]

    def is_little(self, by: str | None, size_bytes: int, left_bytes: int, left_entries: int) -> bool:
        """Return whether a token, with a further entry, holds no more than is then left."""
        holding = self.of(by)
        return holding.size_bytes + size_bytes <= left_bytes - size_bytes and holding.entries + 1 <= left_entries - 1
