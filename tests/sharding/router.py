"""Plays `mongos`: says that it is one, and hands what a driver asks to the router that each shard has built in.

MongoDB's shards carry the code that targets and merges, as `clusterFind`, `clusterInsert` and so on (since 6.0, for
transactions that a shard runs itself). So where a query goes is decided by MongoDB. Only what these commands leave out is
done here: `findAndModify`, `distinct`, `count`, and the making of collections and indexes.
"""

import socketserver
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from socket import SHUT_RDWR, create_connection, socket
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions

from tests.sharding.cluster import CONFIG, MAJORITY, SHARDS, Cluster

Document = dict[str, Any]

OWN: Final = "asked by the tests themselves"
"""The comment of a query that no service asked."""

_HEADER: Final = struct.Struct("<iiii")
_MESSAGE, _QUERY, _REPLY = 2013, 2004, 1
_ROUTED: Final = {
    name: f"cluster{name[0].upper()}{name[1:]}"
    for name in ("find", "getMore", "insert", "update", "delete", "aggregate")
}
_OF_CONNECTIONS: Final = ("lsid", "txnNumber", "$clusterTime")
_HELLO: Final[Document] = {
    "ismaster": True,
    "isWritablePrimary": True,
    "msg": "isdbgrid",
    "maxBsonObjectSize": 16 * 1024 * 1024,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 17,
    "ok": 1.0,
}
_NO_SUCH_COMMAND: Final = 59
_CODEC: Final = CodecOptions[Document](tz_aware=True)


def _receive(stream: socket) -> tuple[int, int, bytes] | None:
    """Number, kind and content of the next message; None at the end."""
    head = _exactly(stream, _HEADER.size)
    if head is None:
        return None
    length, number, _, kind = _HEADER.unpack(head)
    content = _exactly(stream, length - _HEADER.size)
    return None if content is None else (number, kind, content)


def _exactly(stream: socket, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        piece = stream.recv(size - len(found))
        if not piece:
            return None
        found += piece
    return bytes(found)


def _parse(content: bytes) -> Document:
    """The command of an OP_MSG; its sequences of documents become arrays."""
    body: Document = {}
    sequences: Document = {}
    at = 4
    while at < len(content):
        kind, at = content[at], at + 1
        (length,) = struct.unpack_from("<i", content, at)
        section = content[at : at + length]
        if kind == 0:
            body = bson.decode(section, _CODEC)
        else:
            end = section.index(0, 4)
            sequences[section[4:end].decode()] = bson.decode_all(section[end + 1 :], _CODEC)
        at += length
    return body | sequences


def _send(stream: socket, answers: int, document: Mapping[str, Any], *, old: bool = False) -> None:
    data = bson.encode(document)
    content = struct.pack("<iqii", 8, 0, 0, 1) + data if old else struct.pack("<iB", 0, 0) + data
    stream.sendall(_HEADER.pack(_HEADER.size + len(content), 1, answers, _REPLY if old else _MESSAGE) + content)


class _Handler(socketserver.BaseRequestHandler):
    """One connection of a driver, with connections of its own to the servers behind."""

    server: "_Server"

    def setup(self) -> None:
        self._behind: dict[str, socket] = {}
        self.server.open.add(self.request)

    def finish(self) -> None:
        self.server.open.discard(self.request)
        for stream in self._behind.values():
            stream.close()

    def handle(self) -> None:
        while (received := _receive(self.request)) is not None:
            number, kind, content = received
            if kind == _QUERY:  # the first `hello`, before it is known whether OP_MSG is spoken
                _send(self.request, number, _HELLO | {"localTime": datetime.now(UTC)}, old=True)
                continue
            command = {name: value for name, value in _parse(content).items() if name not in _OF_CONNECTIONS}
            _send(self.request, number, self._answer(next(iter(command)), command["$db"], command))

    def _ask(self, server: str, command: Document) -> Document:
        if server not in self._behind:
            self._behind[server] = create_connection(("127.0.0.1", self.server.cluster.members[server].port))
        _send(self._behind[server], 0, command)
        answer = _receive(self._behind[server])
        assert answer is not None, f"{server} closed the connection"
        return _parse(answer[2])

    def _answer(self, name: str, database: str, command: Document) -> Document:
        if name.lower() in ("hello", "ismaster"):
            return _HELLO | {"localTime": datetime.now(UTC)}
        if name in ("ping", "endSessions", "killCursors"):
            return {"ok": 1.0}
        if database == "config" or name in ("buildInfo", "saslStart", "saslContinue"):
            return self._ask(CONFIG, command)
        if name in ("enableSharding", "shardCollection"):
            return self._sharding(name, command)
        self._primary(database)  # makes it, as the first command for a database does
        if name in _ROUTED:
            return self._ask(SHARDS[0], {_ROUTED[name]: command.pop(name), **command})
        return self._by_hand(name, database, command)

    def _by_hand(self, name: str, database: str, command: Document) -> Document:
        if name in ("create", "createIndexes", "collMod", "listCollections", "listIndexes"):
            return self._on_collection(name, database, command)
        if name == "findAndModify":
            return self._ask(self._owner(database, command), command)
        if name not in ("dbStats", "distinct", "count"):
            return {"ok": 0.0, "code": _NO_SUCH_COMMAND, "errmsg": f"no such command: '{name}'"}
        answers = {shard: self._ask(shard, command) for shard in SHARDS}
        if name == "dbStats":
            return {"ok": 1.0, "raw": answers}
        if name == "count":
            return {"ok": 1.0, "n": sum(one["n"] for one in answers.values())}
        return {"ok": 1.0, "values": list({value: 1 for one in answers.values() for value in one["values"]})}

    def _on_collection(self, name: str, database: str, command: Document) -> Document:
        primary = self._primary(database)
        answer = self._ask(primary, command)
        if name in ("createIndexes", "collMod") and self._key(database, command[name]):
            for shard in set(SHARDS) - {primary}:
                self._ask(shard, command)
        return answer

    def _primary(self, database: str) -> str:
        """The shard that has what is not sharded."""
        if database in self.server.primaries:
            return self.server.primaries[database]
        command = {"_configsvrCreateDatabase": database, "$db": "admin", **MAJORITY}
        answer = self._ask(CONFIG, command)
        assert answer["ok"], answer
        self.server.primaries[database] = str(self._find("databases", database)["primary"])
        return self.server.primaries[database]

    def _find(self, collection: str, name: str) -> Document:
        answer = self._ask(CONFIG, {"find": collection, "filter": {"_id": name}, "$db": "config"})
        return next(iter(answer["cursor"]["firstBatch"]), {})

    def _key(self, database: str, collection: str) -> Document:
        found: Document = self._find("collections", f"{database}.{collection}").get("key", {})
        return found

    def _owner(self, database: str, command: Document) -> str:
        collection = command["findAndModify"]
        if self._key(database, collection):
            wanted = {"find": collection, "filter": {"_id": command["query"]["_id"]}, "comment": OWN, "$db": database}
            for shard in SHARDS:
                if self._ask(shard, wanted)["cursor"]["firstBatch"]:
                    return shard
        return self._primary(database)

    def _sharding(self, name: str, command: Document) -> Document:
        database, _, collection = command[name].partition(".")
        primary = self._primary(database)
        if name == "enableSharding":
            return {"ok": 1.0}
        version = self._find("databases", database)["version"]
        ask = {"_shardsvrCreateCollection": collection, "shardKey": command["key"], "databaseVersion": version}
        return self._ask(primary, {**ask, "$db": database, **MAJORITY})


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = cluster
        self.open: set[socket] = set()
        self.primaries: dict[str, str] = {}

    def server_close(self) -> None:
        for stream in list(self.open):
            with suppress(OSError):
                stream.shutdown(SHUT_RDWR)
        super().server_close()


@contextmanager
def router(cluster: Cluster) -> Iterator[str]:
    """The URL of one that runs meanwhile."""
    with _Server(cluster) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"mongodb://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
