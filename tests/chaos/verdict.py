"""After the faults: is everything that was acknowledged there, once, and as it was? Compared are bytes, hashes, receipts."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from pymongo import MongoClient

from scripts.devstack.stack import Stack
from sessions.client.sync import Client
from sessions.client.verifying import Report, Request, verify
from sessions.core.envelope import fingerprint
from sessions.core.merkle import root
from sessions.core.types import ChunkIndex, Hash, SessionId
from tests.chaos.ledger import Ledger

_AT_ONCE: Final = 8


@dataclass(slots=True)
class Verdict:
    """What is wrong, by kind; nothing is, when all are empty."""

    lost: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def wrong(self) -> list[str]:
        """All of it."""
        return [*self.lost, *self.altered, *self.duplicated, *self.unproven]


class Judge:
    """Compares a stack with what its recorders were told."""

    def __init__(self, stack: Stack, database_url: str, ledger: Ledger) -> None:
        self._stack, self._database_url, self._ledger = stack, database_url, ledger
        self.verdict = Verdict()

    def judge(self, wait_seconds: float) -> Verdict:
        """Look at every session; anchors get `wait_seconds` to be confirmed."""
        deadline = time.monotonic() + wait_seconds
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one: self._session(one, deadline), self._ledger.plans))
        self._batches()
        self._documents()
        return self.verdict

    def _get(self, http: httpx.Client, service: str, path: str, role: str) -> httpx.Response:
        url = self._stack.processor_url if service == "processor" else self._stack.storage_url
        headers = {"authorization": f"Bearer {self._stack.tokens[role]}"}
        return http.get(f"{url}{path}", headers=headers)

    def _session(self, session: str, deadline: float) -> None:
        plan, verdict, path = self._ledger.plans[session], self.verdict, f"/api/v1/sessions/{session}"
        with httpx.Client(timeout=60, trust_env=False) as http:
            try:
                content = self._get(http, "processor", f"{path}/content", "replay")
            except httpx.TransportError as error:
                verdict.lost.append(f"{session}: its replay breaks off: {error}")
            else:
                if content.status_code != httpx.codes.OK:
                    verdict.lost.append(f"{session}: replay answers {content.status_code} {content.text[:200]}")
                elif content.content != plan.whole():
                    verdict.altered.append(f"{session}: the replay has other bytes than were recorded")
                verdict.figures["plaintext bytes compared"] += len(content.content)
            self._chunks(http, session)
            report = self._report(http, session, deadline)
        if report.verdict != "proven":
            steps = "; ".join(step.text for step in report.steps if step.outcome.value == "failed")
            verdict.unproven.append(f"{session}: its receipt is {report.verdict}: {steps}")
        verdict.figures["receipts verified"] += report.verdict == "proven"

    def _chunks(self, http: httpx.Client, session: str) -> None:
        verdict, plan = self.verdict, self._ledger.plans[session]
        with Client(self._stack.processor_url, self._stack.storage_url, token=self._stack.tokens["audit"]) as client:
            records = list(client.chunks(session))
        there = {record.index: record.envelope_sha256 for record in records}
        for index in sorted(self._ledger.stored[session].keys() | self._ledger.spooled[session]):
            acknowledged = self._ledger.stored[session].get(index)
            if index not in there:
                verdict.lost.append(f"{session}/{index}: was acknowledged and is not there")
            elif acknowledged not in (None, there[index].hex()):
                verdict.altered.append(f"{session}/{index}: another envelope than was acknowledged")
        if extra := there.keys() - set(range(plan.chunk_count)):
            verdict.duplicated.append(f"{session}: chunks that nobody recorded: {sorted(extra)[:5]}")
        leaves = []
        for index in sorted(there):
            envelope = self._get(
                http, "storage", f"/api/v1/sessions/{session}/chunks/{index}/envelope", "audit"
            ).content
            found = fingerprint(SessionId(session), ChunkIndex(index), envelope)
            if found.envelope_sha256 != there[index]:
                verdict.altered.append(f"{session}/{index}: the envelope is not the one of its record")
            leaves.append(Hash(found.leaf_hash))
        manifest = self._get(http, "storage", f"/api/v1/sessions/{session}/manifest", "audit").json()
        if manifest["root"] != root(leaves).hex() or manifest["chunk_count"] != plan.chunk_count:
            verdict.altered.append(f"{session}: the manifest does not state what is stored")
        verdict.figures["chunks compared"] += len(there)

    def _report(self, http: httpx.Client, session: str, deadline: float) -> Report:
        """What becomes of the receipt; what the chain lost after it was confirmed is anchored again."""
        while True:
            receipt = self._get(http, "storage", f"/api/v1/sessions/{session}/receipt", "audit").content
            report = verify(Request(receipt, node_url=self._stack.rpc_url))
            if report.verdict == "proven" or time.monotonic() > deadline:
                return report
            time.sleep(1)

    def _batches(self) -> None:
        """Each session is in one batch, and no batch has two roots."""
        with Client(self._stack.processor_url, self._stack.storage_url, token=self._stack.tokens["audit"]) as client:
            anchors = [client.anchor(one.root) for one in client.anchors()]
        where = Counter(session for one in anchors for session in one.sessions or ())
        for session in self._ledger.plans:
            if where[session] != 1:
                self.verdict.duplicated.append(f"{session}: is in {where[session]} batches")
        self.verdict.figures["batches"] = len(anchors)

    def _documents(self) -> None:
        """There are as many records as chunks; bodies beyond that are a crash's left-overs, which prove nothing."""
        with MongoClient[dict[str, Any]](self._database_url) as client:
            database = client[self._stack.env["storage"]["MONGODB_DATABASE"]]
            records, bodies = (database[name].count_documents({}) for name in ("chunks", "bodies"))
        wanted = sum(plan.chunk_count for plan in self._ledger.plans.values())
        if records != wanted:
            self.verdict.duplicated.append(f"{records} records of {wanted} chunks")
        self.verdict.figures["bodies left over"] = bodies - records
