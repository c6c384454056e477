"""How far this process has acknowledged each session: a seal must not have fewer chunks than that."""

from collections import OrderedDict
from typing import Final

from sessions.core.types import SessionId

_SESSIONS: Final = 10_000


class Acknowledged:
    """Remembers, of the sessions used last, the least number of chunks that the recording has."""

    def __init__(self) -> None:
        self._floors: OrderedDict[SessionId, int] = OrderedDict()

    def note(self, session_id: SessionId, index: int) -> None:
        """Note a chunk that was acknowledged."""
        self._floors[session_id] = max(index + 1, self._floors.get(session_id, 0))
        self._floors.move_to_end(session_id)
        if len(self._floors) > _SESSIONS:
            self._floors.popitem(last=False)

    def floor(self, session_id: SessionId) -> int:
        """Return the least number of chunks that a session has."""
        return self._floors.get(session_id, 0)

    def forget(self, session_id: SessionId) -> None:
        """Forget a session: it is sealed, shredded, or an operator dropped chunks of it."""
        self._floors.pop(session_id, None)
