"""A sharded cluster of real servers: a config server, and two shards of one member each.

The package that carries `mongod` has no `mongos`. What a `mongos` asks of a cluster to become one are commands of the
config server, which are given here by hand; `router.py` does what is left of its work.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient

from scripts.devstack import process
from scripts.devstack.mongod import Mongod
from scripts.devstack.process import StartError

MAJORITY: Final = {"writeConcern": {"w": "majority"}}
CONFIG: Final = "config-server"
SHARDS: Final = ("shard-a", "shard-b")


@dataclass
class Cluster:
    """The servers, with their data in `folder`, by the names of their replica sets."""

    folder: Path
    members: dict[str, Mongod] = field(init=False)
    _clients: dict[str, MongoClient[dict[str, Any]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        roles = {CONFIG: "--configsvr", **dict.fromkeys(SHARDS, "--shardsvr")}
        self.members = {
            name: Mongod(self.folder / name / "data", "member", extra=(role,), set_name=name)
            for name, role in roles.items()
        }

    def client(self, name: str) -> MongoClient[dict[str, Any]]:
        """A client of one member, past any router; it is closed when the cluster stops."""
        if name not in self._clients:
            port = self.members[name].port
            self._clients[name] = MongoClient("127.0.0.1", port, directConnection=True, serverMonitoringMode="poll")
        return self._clients[name]

    def start(self) -> None:
        """Start all, and make them a cluster.

        Raises:
            StartError: a member does not come up, or does not become primary.
        """
        with ThreadPoolExecutor(len(self.members)) as pool:
            list(pool.map(self._start, self.members))
        for name in SHARDS:
            host = f"{name}/127.0.0.1:{self.members[name].port}"
            self.client(CONFIG).admin.command({"_configsvrAddShard": host, **MAJORITY})

    def _start(self, name: str) -> None:
        member = self.members[name]
        member.start()
        hosts = [{"_id": 0, "host": f"127.0.0.1:{member.port}"}]
        admin = self.client(name).admin
        admin.command("replSetInitiate", {"_id": name, "members": hosts})
        if not process.wait_until(lambda: bool(admin.command("hello")["isWritablePrimary"]), process.START_SECONDS):
            raise StartError("mongod", f"{name} did not become primary")

    def stop(self) -> None:
        """Stop all."""
        for client in self._clients.values():
            client.close()
        with ThreadPoolExecutor(len(self.members)) as pool:
            list(pool.map(Mongod.stop, self.members.values()))
