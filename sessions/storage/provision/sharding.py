"""Spreads session-storage's database over the shards of a MongoDB cluster; `lucid-sessions shard-setup` calls it.

Which collections, and by which key, is in `KEYS`; docs/scaling.md has the reasons. Every query of one session on the
path of a chunk, a seal or a replay names `_id` or `_id.s`, so that it goes to one shard alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from sessions.storage.mongo_options import OPTIONS

_BY_SESSION: Final[Mapping[str, int | str]] = {"_id.s": "hashed", "_id.i": 1}
KEYS: Final[Mapping[str, Mapping[str, int | str]]] = {
    "sessions": {"_id": "hashed"},
    "chunks": _BY_SESSION,
    "bodies": _BY_SESSION,
    "tiles": {"_id.s": "hashed", "_id.n": 1},
}
"""What is sharded, and by what.

By the hash of the session's id, so that ids which begin with the time do not all come to one shard. Then by the place
within the session, so that a session which outgrows a range can be split. `_id` stays unique over all shards: documents
with the same `_id` have the same key, and so are on the same shard.
"""
_SELECT_SERVER_MS: Final = 5_000
_ROUTER: Final = "isdbgrid"
_NOT_ALLOWED: Final = (13, 18)
"""Codes of what a user may not do, and of one who is not known."""


class ShardingError(Exception):
    """It cannot be done; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with a collection, or was found done.

    Attributes:
        collection: Its name.
        key: The shard key, by field: 1 or `hashed`.
        documents: How many it holds, about; None when it is not there yet.
        done: Whether it is sharded by this key.
    """

    collection: str
    key: Mapping[str, int | str]
    documents: int | None
    done: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is, and what is to be done.

    Attributes:
        database: Its name.
        shards: Names of the shards of the cluster.
        steps: One for each collection.
    """

    database: str
    shards: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return all(step.done for step in self.steps)


def shard(url: str, database: str, *, dry_run: bool) -> Plan:
    """Shard the collections of a database that are not yet; what is sharded stays as it is. Safe to repeat.

    Args:
        url: MongoDB URL of a `mongos`, of a user with the role `clusterManager` and rights on the database.
        database: That of session-storage. Before its first start is best: what is empty is spread at once, what is not
            stays where it is until MongoDB's balancer moves it.
        dry_run: Only look.

    Returns:
        The plan as it was before anything was done.

    Raises:
        ShardingError: there is no `mongos`, a collection has another key, or it is refused.
    """
    try:
        with MongoClient[dict[str, Any]](
            url,
            appname="shard-setup",
            serverSelectionTimeoutMS=_SELECT_SERVER_MS,
            serverMonitoringMode="poll",  # it lives too short to be told of changes
        ) as client:
            _require_router(client)
            found = _plan(client, database)
            if not dry_run:
                _apply(client, found)
            return found
    except OperationFailure as error:
        rights = "the user needs the roles clusterManager and, of the database, dbAdmin"
        hint = rights if error.code in _NOT_ALLOWED else "what was sharded before stays; repeat when that is mended"
        raise ShardingError(f"MongoDB refuses: {str(error)[:300]}", hint) from error
    except (PyMongoError, ValueError) as error:
        raise ShardingError(f"MongoDB is not reached: {type(error).__name__}: {str(error)[:200]}") from error


def _require_router(client: MongoClient[dict[str, Any]]) -> None:
    answer = client.admin.command("hello")
    if answer.get("msg") != _ROUTER:
        what = "a replica set" if "setName" in answer else "a single mongod"
        raise ShardingError(f"this is {what}, not a mongos: nothing to shard", "see docs/scaling.md")


def _plan(client: MongoClient[dict[str, Any]], database: str) -> Plan:
    shards = tuple(sorted(str(shard["_id"]) for shard in client.config.shards.find({}, {"_id": 1})))
    present = {entry["name"] for entry in client[database].list_collections()}
    return Plan(database, shards, tuple(_step(client, database, name, name in present) for name in KEYS))


def _step(client: MongoClient[dict[str, Any]], database: str, name: str, present: bool) -> Step:
    key = KEYS[name]
    entry = client.config.collections.find_one({"_id": f"{database}.{name}", "dropped": {"$ne": True}}) or {}
    found = entry.get("key")
    if found is not None and list(found.items()) != list(key.items()):
        raise ShardingError(
            f"{name} is sharded by {dict(found)} already, and not by {dict(key)}",
            "MongoDB's reshardCollection changes a key; nothing was changed here",
        )
    documents = client[database][name].estimated_document_count() if present else None
    return Step(name, key, documents, found is not None)


def _apply(client: MongoClient[dict[str, Any]], plan: Plan) -> None:
    client.admin.command("enableSharding", plan.database)  # MongoDB 5 asks for it; later ones let it pass
    for step in plan.steps:
        if step.documents is None:
            client[plan.database].create_collection(step.collection, **OPTIONS.get(step.collection, {}))
        if not step.done:
            # MongoDB makes the index by itself only where there is no document yet.
            client[plan.database][step.collection].create_index(list(step.key.items()))
            client.admin.command("shardCollection", f"{plan.database}.{step.collection}", key=dict(step.key))
