"""MongoDB: the connection, what is created at start, and how the driver's errors become ours.

All writes are of one document and need no transaction, so a standalone `mongod`, a replica set and a sharded cluster
(`provision/sharding.py`) all do. Write concern is majority and journaled: acknowledged means on disk. Where one journal
has two writes in their order, the first is not waited for (`mongo_journal.py`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import pymongo
import structlog
from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient, ReadPreference, uri_parser
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import CollectionInvalid, ConfigurationError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from sessions.runtime.errors import DomainError
from sessions.storage.mongo_journal import Connections, Elections
from sessions.storage.mongo_options import OPTIONS
from sessions.storage.mongo_url import OVERRIDES, SELECT_SERVER_MS, require_harmless

Document: TypeAlias = dict[str, Any]
Database: TypeAlias = AsyncDatabase[Document]

_log = structlog.get_logger()
_RETRY_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 2.0
COLLECTION_EXISTS: Final = 48
_AUTHENTICATION_FAILED: Final = 18
NEWEST: Final = (("opened_at", -1), ("_id", -1))
"""The order of lists of sessions."""
DUPLICATE_KEY: Final = 11000


def _object(required: Mapping[str, Any]) -> Document:
    return {"bsonType": "object", "required": list(required), "properties": dict(required)}


_TEXT: Final = {"bsonType": "string"}
_BINARY: Final = {"bsonType": "binData"}
_NUMBER: Final = {"bsonType": ["int", "long"], "minimum": 0}
_KEY: Final = _object({"dek_id": _BINARY, "kek_id": _TEXT, "wrapped": _BINARY})
_SCHEMAS: Final[Mapping[str, Document]] = {
    "sessions": _object(
        {
            "_id": _TEXT,
            "status": {"enum": ["open", "sealing", "sealed", "shredded"]},
            "opened_at": {"bsonType": "date"},
            "metadata": _BINARY,
            "keys": {"bsonType": "array", "items": _KEY},
        }
    ),
    "chunks": _object(
        {
            "_id": _object({"s": _TEXT, "i": _NUMBER}),
            "plaintext_bytes": _NUMBER,
            "envelope_bytes": _NUMBER,
            "envelope_sha256": _BINARY,
            "leaf_hash": _BINARY,
        }
    ),
    "bodies": _object({"_id": _object({"s": _TEXT, "i": _NUMBER, "e": _BINARY, "p": _NUMBER}), "data": _BINARY}),
    "tiles": _object({"_id": _object({"s": _TEXT, "a": _TEXT, "l": _NUMBER, "n": _NUMBER}), "hashes": _BINARY}),
}


def _names_replica_set(url: str) -> bool:
    """Whether it will be one. That of an address of SRV is known later only; there each write is waited for."""
    return url.startswith("mongodb://") and "replicaSet" in uri_parser.parse_uri(url)["options"]


def connect(url: str, database: str) -> tuple[AsyncMongoClient[Document], Database]:
    """Return a client, which connects in the background, and its database. No option of the URL weakens a promise.

    Raises:
        ValueError: the URL is not one of MongoDB, or has an option that is refused.
    """
    require_harmless(url)
    try:
        listeners = [Connections(), *([Elections()] if _names_replica_set(url) else [])]
        client: AsyncMongoClient[Document] = AsyncMongoClient(url, event_listeners=listeners, **OVERRIDES)
    except (PyMongoError, ConfigurationError) as error:
        raise ValueError(str(error)) from None
    return client, client.get_database(
        database,
        codec_options=CodecOptions(tz_aware=True),
        # Whatever the URL says: a secondary that is behind would have a seal leave out acknowledged chunks.
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern(w="majority", j=True),
        # What a majority has cannot be rolled back: a seal never covers a chunk that a failover takes away.
        read_concern=ReadConcern("majority"),
    )


async def close(client: AsyncMongoClient[Document]) -> None:
    """Close a client, or give up after two seconds: a cancelled call may have left its lock locked."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


async def ensure_collections(db: Database) -> None:
    """Create collections, validators and indexes, or bring them up to date. Safe to repeat, and by several replicas."""
    for name, schema in _SCHEMAS.items():
        validator = {"$jsonSchema": schema}
        try:
            await db.create_collection(name, validator=validator, check_exists=False, **OPTIONS.get(name, {}))
        except (CollectionInvalid, OperationFailure) as error:
            if getattr(error, "code", COLLECTION_EXISTS) != COLLECTION_EXISTS:
                raise
            await db.command({"collMod": name, "validator": validator})
    await db["sessions"].create_index(list(NEWEST))
    await db["sessions"].create_index([("status", 1), *NEWEST])


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn the driver's errors into `database-unavailable`: every write may be repeated, so the answer is to wait.

    Raises:
        DomainError: `database-unavailable`.
    """
    try:
        yield
    except PyMongoError as error:
        _log.warning("database_error", error=type(error).__name__, reason=str(error)[:500])
        raise DomainError(
            "database-unavailable", "the database did not do this now; repeat the request", retry_after_seconds=1
        ) from error


def _reason(error: Exception) -> str:
    """What is wrong, for whoever runs the service."""
    if isinstance(error, OperationFailure) and error.code == _AUTHENTICATION_FAILED:
        return "MongoDB refuses this user or password: put the right one there, or give the user this password"
    return f"{type(error).__name__}: {str(error)[:200]}"


class Readiness:
    """Whether the database has been reached and prepared; keeps trying until it has."""

    def __init__(self, db: Database, *prepare: Any) -> None:
        """`prepare` are async functions of the database, repeated until all succeed."""
        self._db = db
        self._prepare = prepare
        self.established = asyncio.Event()
        self.reason = "not reached yet"

    @property
    def ready(self) -> bool:
        """Whether it has been prepared."""
        return self.established.is_set()

    async def watch(self, look: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
        """Look again and again, from when the database has been prepared until cancelled."""
        await self.established.wait()
        while True:
            await look()
            await asyncio.sleep(pause_seconds)

    async def establish(self) -> None:
        """Try until it works."""
        while not self.ready:
            try:
                with pymongo.timeout(SELECT_SERVER_MS / 1000):  # so that the reason is known soon
                    await self._db.command("ping")
                for prepare in (ensure_collections, *self._prepare):
                    await prepare(self._db)
            except PyMongoError as error:
                self.reason = _reason(error)
                _log.warning("database_not_ready", setting="MONGODB_URL", reason=self.reason)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.established.set()
                _log.info("database_ready")

    async def ping(self) -> str | None:
        """None when the database answers, else why not."""
        if not self.ready:
            return self.reason
        try:
            # The driver bounds its call. Before Python 3.12, cancelling one can leave the driver's lock locked forever:
            # its own `asyncio.wait_for` may then return before the task that it has wrapped.
            with pymongo.timeout(_RETRY_SECONDS * 2):
                await self._db.command("ping")
        except PyMongoError as error:
            return _reason(error)
        return None

    def require(self) -> None:
        """Refuse work before the collections are there.

        Raises:
            DomainError: `database-unavailable`.
        """
        if not self.ready:
            raise DomainError("database-unavailable", "the database is not reached yet", retry_after_seconds=2)
