"""Whether two writes went into one journal, in their order: then the first lasts once the second is acknowledged.

So it is with a standalone `mongod`, as long as it is the same process. In a replica set another primary may come
between them, and in a sharded cluster they may be on different shards: there each write is waited for.
"""

from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.monitoring import ConnectionPoolListener, ConnectionReadyEvent

_STANDALONE: Final = "Standalone"


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


class Journal:
    """What a client knows of the journals that it writes into."""

    def __init__(self, client: AsyncMongoClient[Any]) -> None:
        self._client = client
        self._connections = next((one for one in client.options.event_listeners if isinstance(one, Connections)), None)

    def mark(self) -> int | None:
        """The journal that is written into now; None where there is not one journal.

        What is acknowledged between two marks that are the same went into it: over connections that were there at the
        first, and none of these outlives the process at its other end.
        """
        servers = self._client.topology_description.server_descriptions().values()
        if self._connections is None or [server.server_type_name for server in servers] != [_STANDALONE]:
            return None
        return self._connections.made
