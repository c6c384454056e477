"""A replica set of three real mongods, for tests that take its primary away."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from scripts.devstack import process
from scripts.devstack.mongod import REPLICA_SET, Mongod
from scripts.devstack.process import StartError

_MEMBERS: Final = 3
_ELECTION_MILLISECONDS: Final = 2000
"""A fifth of the default: a set on one machine hears from its members at once, and tests need not wait longer."""
_ALREADY_INITIALIZED: Final = 23


@dataclass
class ReplicaSet:
    """Three members with their data in `folder`; the ports stay the same when they are started again."""

    folder: Path
    members: list[Mongod] = field(init=False)

    def __post_init__(self) -> None:
        names = [f"member-{number}" for number in range(_MEMBERS)]
        self.members = [Mongod(self.folder / name / "data", "member", test_commands=True) for name in names]

    @property
    def url(self) -> str:
        """The connection string that names all members."""
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={REPLICA_SET}"

    def start(self) -> None:
        """Start all members, make them a set, and wait for a primary.

        Raises:
            StartError: a member does not come up, or none becomes primary.
        """
        with ThreadPoolExecutor(_MEMBERS) as pool:
            list(pool.map(Mongod.start, self.members))
        hosts = [{"_id": number, "host": f"127.0.0.1:{member.port}"} for number, member in enumerate(self.members)]
        # Each takes from the primary, so one that is held back holds back no other.
        timing = {"electionTimeoutMillis": _ELECTION_MILLISECONDS, "heartbeatIntervalMillis": 500}
        settings = {**timing, "chainingAllowed": False}
        try:
            with _direct(self.members[0]) as client:
                client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": hosts, "settings": settings})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise StartError("mongod", f"the replica set was refused: {error}") from error
        if not process.wait_until(lambda: self.primary() is not None, process.START_SECONDS):
            raise StartError("mongod", "no member of the replica set became its primary")

    def primary(self) -> Mongod | None:
        """The member that takes writes now; None while there is none."""
        for member in self.members:
            if member.process is None or not member.process.alive:
                continue
            try:
                with _direct(member) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return member
            except PyMongoError:
                continue
        return None

    def step_down(self, seconds: int) -> None:
        """Have the primary hand over, and not stand for election for so long; nothing happens without a primary."""
        primary = self.primary()
        if primary is None:
            return
        try:
            with _direct(primary) as client:
                client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=0, force=True)
        except PyMongoError:  # it closes connections, or no secondary was near enough
            pass

    def replicate(self, *, on: bool) -> None:
        """Whether those members that are not primary go on taking what the primary has."""
        primary = self.primary()
        for member in self.members:
            if member is not primary and member.process is not None:
                with _direct(member) as client:
                    client.admin.command("configureFailPoint", "stopReplProducer", mode="off" if on else "alwaysOn")

    def stop(self) -> None:
        """Stop all members; their data stay."""
        for member in self.members:
            member.stop()


def _direct(member: Mongod) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        "127.0.0.1",
        member.port,
        directConnection=True,
        serverSelectionTimeoutMS=1000,
        socketTimeoutMS=2000,
        serverMonitoringMode="poll",
    )
