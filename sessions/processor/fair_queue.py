"""A queue that serves sessions in turn, by bytes: who sends much waits for itself, not others for it."""

from collections import OrderedDict, deque
from typing import Final, Generic, TypeVar

from sessions.core.types import SessionId

T = TypeVar("T")
QUANTUM_BYTES: Final = 256 * 1024
"""What each session may send in its turn; what it does not use, for its chunk was larger, it keeps for the next."""


class _Line(Generic[T]):
    __slots__ = ("credit", "items")

    def __init__(self) -> None:
        self.items: deque[tuple[int, T]] = deque()
        self.credit = 0


class FairQueue(Generic[T]):
    """Deficit round robin (Shreedhar and Varghese, 1995) over sessions."""

    def __init__(self) -> None:
        self._lines: OrderedDict[SessionId, _Line[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, session_id: SessionId, size_bytes: int, item: T) -> None:
        """Queue an item behind those of its session."""
        line = self._lines.get(session_id)
        if line is None:
            line = self._lines[session_id] = _Line()
        line.items.append((size_bytes, item))
        self._count += 1

    def take(self, max_bytes: int, max_items: int) -> list[T]:
        """The next items, at most so many and so large together (but one, however large)."""
        taken: list[T] = []
        left = max_bytes
        while self._lines and len(taken) < max_items:
            session_id, line = next(iter(self._lines.items()))
            line.credit += QUANTUM_BYTES
            while line.items and len(taken) < max_items:
                size, item = line.items[0]
                if taken and size > left:
                    return taken
                if size > line.credit and len(self._lines) > 1:
                    break
                line.items.popleft()
                line.credit -= size
                left -= size
                taken.append(item)
                self._count -= 1
            if line.items:
                self._lines.move_to_end(session_id)
            else:
                del self._lines[session_id]
        return taken

    def clear(self) -> list[T]:
        """Everything, the queue is empty then."""
        found = [item for line in self._lines.values() for _, item in line.items]
        self._lines.clear()
        self._count = 0
        return found
