"""Whether two writes are in one journal, in their order: then the first lasts once the second is acknowledged.

So it is with a standalone `mongod`, as long as it is the same process. So it is in a replica set, as long as both were
taken by one primary in one term: its oplog goes to the others in order, so a majority that has the second has the
first, too. In a sharded cluster they may be on different shards: there each write is waited for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
    ConnectionPoolListener,
    ConnectionReadyEvent,
)

_STANDALONE: Final = "Standalone"
_WITH_PRIMARY: Final = "ReplicaSetWithPrimary"
_elections: ContextVar[set[Any] | None] = ContextVar("elections", default=None)


class Connections(ConnectionPoolListener):
    """Counts the connections that a client makes; to be given to it when it is made."""

    def __init__(self) -> None:
        self.made = 0

    def connection_ready(self, event: ConnectionReadyEvent) -> None:  # noqa: ARG002 - the driver's signature
        """One more can be used from now on."""
        self.made += 1

    def _nothing(self, event: Any) -> None:
        """Of no interest here."""

    pool_created = pool_ready = pool_cleared = pool_closed = _nothing
    connection_created = connection_closed = _nothing
    connection_check_out_started = connection_check_out_failed = connection_checked_out = _nothing
    connection_checked_in = _nothing


class Elections(CommandListener):
    """Notes by which election the primaries are there that answer; to be given to a client when it is made.

    Each election of a replica set has an id of its own, which is in the answer to every write.
    """

    def started(self, event: CommandStartedEvent) -> None:
        """Of no interest here."""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """A server has answered."""
        if (seen := _elections.get()) is not None:
            seen.add(event.reply.get("electionId"))

    def failed(self, event: CommandFailedEvent) -> None:
        """It has not done it; when the driver tries again, that answer counts."""


class Order:
    """The order of the writes of a block."""

    def __init__(self, journal: "Journal") -> None:
        self._journal = journal
        self._made = journal.connections_made()
        self.elections: set[Any] | None = set() if journal.elects() else None

    @property
    def likely(self) -> bool:
        """Whether one journal will have them, unless something happens."""
        return self._made is not None or self.elections is not None

    @property
    def kept(self) -> bool:
        """Whether nothing has: one journal has those that were acknowledged up to now, as they came.

        Of a standalone server, when no connection was made meanwhile: none outlives the process at its other end.
        """
        if self.elections is not None:
            return len(self.elections) == 1 and None not in self.elections
        return self._made is not None and self._made == self._journal.connections_made()


class Journal:
    """What a client knows of the journals that it writes into."""

    def __init__(self, client: AsyncMongoClient[Any]) -> None:
        listeners = client.options.event_listeners
        self._client = client
        self._connections = next((one for one in listeners if isinstance(one, Connections)), None)
        self._told_of_elections = any(isinstance(one, Elections) for one in listeners)

    @contextmanager
    def watch(self) -> Iterator[Order]:
        """See what becomes of the order of the writes that the block makes."""
        order = Order(self)
        token = _elections.set(order.elections)
        try:
            yield order
        finally:
            _elections.reset(token)

    def connections_made(self) -> int | None:
        """How many there were so far; None when it is not one standalone server."""
        servers = self._client.topology_description.server_descriptions().values()
        if self._connections is None or [server.server_type_name for server in servers] != [_STANDALONE]:
            return None
        return self._connections.made

    def elects(self) -> bool:
        """Whether there is the primary of a replica set, and its answers are seen."""
        return self._told_of_elections and self._client.topology_description.topology_type_name == _WITH_PRIMARY
