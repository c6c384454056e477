"""A queue that serves sessions in turn, by bytes: who sends much waits for itself, not others for it."""

from collections import OrderedDict, deque
from collections.abc import Callable, Container
from typing import Generic, TypeVar

from sessions.core.types import SessionId

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Round robin over sessions, each with a share of bytes in its turn."""

    def __init__(self) -> None:
        self._lines: OrderedDict[SessionId, deque[tuple[int, T]]] = OrderedDict()
        self.items = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        """How many sessions wait."""
        return len(self._lines)

    def put(self, session_id: SessionId, size_bytes: int, item: T) -> None:
        """Queue an item behind those of its session."""
        line = self._lines.get(session_id)
        if line is None:
            line = self._lines[session_id] = deque()
        line.append((size_bytes, item))
        self.items += 1
        self.size_bytes += size_bytes

    def take(
        self, max_bytes: int, max_items: int, share_bytes: int, busy: Container[SessionId] = ()
    ) -> tuple[list[T], set[SessionId]]:
        """The next items, and whose they are; of sessions that are `busy`, none.

        At most so many and so large together, and of each session at most `share_bytes`; but of the first session, and
        in each session's share, one item, however large.
        """
        taken: list[T] = []
        whose: set[SessionId] = set()
        left = max_bytes
        for session_id in [session_id for session_id in self._lines if session_id not in busy]:
            line, share = self._lines[session_id], share_bytes
            while line and len(taken) < max_items:
                size, item = line[0]
                if (taken and size > left) or (session_id in whose and size > share):
                    break
                line.popleft()
                taken.append(item)
                whose.add(session_id)
                left -= size
                share -= size
            if not line:
                del self._lines[session_id]
            elif session_id in whose:
                self._lines.move_to_end(session_id)
            if left <= 0 or len(taken) == max_items:
                break
        self.items -= len(taken)
        self.size_bytes -= max_bytes - left
        return taken, whose

    def clear(self, wanted: Callable[[T], bool] = lambda _: True) -> list[T]:
        """Remove the items that are wanted, by default all; return them."""
        found: list[T] = []
        for session_id, line in list(self._lines.items()):
            found += [item for _, item in line if wanted(item)]
            left = deque(entry for entry in line if not wanted(entry[1]))
            if left:
                self._lines[session_id] = left
            else:
                del self._lines[session_id]
        lines = self._lines.values()
        self.items = sum(map(len, lines))
        self.size_bytes = sum(size for line in lines for size, _ in line)
        return found
