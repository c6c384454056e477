"""A stack as no client sees it: what is in the database and on the chain, while storage dies and comes back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from scripts.devstack.process import wait_until
from scripts.devstack.stack import Stack
from sessions.client.verifying import Request, verify
from tests.e2e.conftest import Api


class Left(NamedTuple):
    """What a death leaves of a batch: its state, what is marked as placed, and its newest transaction."""

    state: str
    batch_placed: bool
    session_placed: bool
    signed: int = 0
    where: str | None = None


class Inside:
    """The database and the chain of a stack whose blocks come when a test wants them."""

    def __init__(self, stack: Stack, database: Any) -> None:
        self.stack, self.database = stack, database

    def session(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.database["sessions"].find_one({"_id": name})
        return found

    def chunk_documents(self, name: str, index: int) -> tuple[int, int]:
        """Records, and parts of bodies."""
        of = {"_id.s": name, "_id.i": index}
        return self.database["chunks"].count_documents(of), self.database["bodies"].count_documents(of)

    def bodies(self, name: str) -> int:
        return int(self.database["bodies"].count_documents({"_id.s": name}))

    def seal_was_ordered_before(self, name: str, ago: timedelta) -> None:
        """As if so much time had passed since."""
        at = self.session(name)["seal_order"]["sealed_at"] - ago
        self.database["sessions"].update_one({"_id": name}, {"$set": {"seal_order.sealed_at": at}})

    def was_submitted_before(self, name: str, ago: timedelta) -> None:
        """As if so much time had passed since."""
        batch = self.batch(name)
        at = {"submitted_at": batch["submitted_at"] - ago}
        self.database["batches"].update_one({"_id": batch["_id"]}, {"$set": at})

    def leases_run_out(self) -> None:
        """Those of a dead process would in some seconds."""
        self.database["leases"].update_many({}, {"$set": {"expires_at": datetime(1970, 1, 1, tzinfo=UTC)}})

    @contextmanager
    def slow_records(self) -> Iterator[None]:
        """The next insert of chunk records takes two seconds."""
        data = {"failCommands": ["insert"], "namespace": f"{self.database.name}.chunks"}
        slow = {"blockConnection": True, "blockTimeMS": 2000}
        admin = self.database.client.admin
        admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data | slow})
        try:
            yield
        finally:
            admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    def mine(self) -> None:
        self.stack.anvil.call("anvil_mine", "0x1")

    def lose_a_block(self) -> None:
        """The newest, with what is in it."""
        self.stack.anvil.call("anvil_reorg", 1, [])

    def batch(self, name: str) -> dict[str, Any]:
        """The one batch that a session is in; {} for none."""
        found = list(self.database["batches"].find({"sessions": name}))
        assert len(found) <= 1
        return found[0] if found else {}

    def state(self, name: str) -> str | None:
        batch = self.batch(name)
        return batch["anchor"]["state"] if batch else None

    def where(self, transaction: bytes) -> str:
        found = self.stack.anvil.call("eth_getTransactionByHash", "0x" + transaction.hex())
        return "nowhere" if found is None else "pool" if found["blockNumber"] is None else "block"

    def left(self, name: str) -> Left:
        batch = self.batch(name)
        signed = batch["transactions"]
        where = self.where(signed[-1]["hash"]) if signed else None
        placed = "batch" in self.session(name)
        return Left(batch["anchor"]["state"], batch["placed"], placed, len(signed), where)

    def waits_for_a_block(self, name: str) -> bool:
        batch = self.batch(name)
        signed = batch and batch["anchor"]["state"] == "submitted" and batch["transactions"]
        return bool(signed) and self.where(signed[-1]["hash"]) == "pool"

    def in_a_block(self, name: str) -> None:
        """Give the session's anchor the block that it waits for, if it does."""
        blocks = ("included", "confirmed")
        assert wait_until(lambda: self.waits_for_a_block(name) or self.state(name) in blocks, 30)
        if self.waits_for_a_block(name):
            self.mine()

    def confirm(self, name: str) -> None:
        """One block after the other, so that the anchorer does not leave out a state."""
        self.in_a_block(name)
        assert wait_until(lambda: self.state(name) in ("included", "confirmed"), 30)
        if self.state(name) == "included":
            self.mine()
        assert wait_until(lambda: self.state(name) == "confirmed", 30)

    def check_anchored(self, api: Api, name: str) -> None:
        """The session is anchored, once, and so are all others: a batch each root, a transaction and a nonce each batch."""
        self.leases_run_out()
        self.confirm(name)
        receipt = api.storage("GET", f"/api/v1/sessions/{name}/receipt").json()
        report = verify(Request(json.dumps(receipt).encode(), node_url=self.stack.rpc_url))
        assert report.verdict == "proven", report.steps
        batches = list(self.database["batches"].find())
        members = [session for batch in batches for session in batch["sessions"]]
        assert len(members) == len(set(members))
        mined = [(batch["root"], batch["anchor"]["transaction"]) for batch in batches]
        events = self.stack.anvil.call("eth_getLogs", {"fromBlock": "0x0", "address": self.stack.contract})
        told = [(bytes.fromhex(one["topics"][2][2:]), bytes.fromhex(one["transactionHash"][2:])) for one in events]
        assert sorted(told) == sorted(mined)
        used = int(self.stack.anvil.call("eth_getTransactionCount", self.stack.publisher, "latest"), 16)
        assert used == len(batches)
        nonces = {one["nonce"] for batch in batches for one in batch["transactions"]}
        assert nonces == set(range(len(batches)))
