"""After the faults: is everything that was acknowledged there, once, and as it was? Compared are bytes, hashes, receipts."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import httpx
import rfc8785
from pymongo import MongoClient

from scripts.devstack.process import wait_until
from scripts.devstack.replicas import Replica
from scripts.devstack.stack import Stack
from sessions.client.sync import Client
from sessions.client.verifying import Report, Request, verify
from sessions.core.envelope import fingerprint, missing_leaf_input
from sessions.core.merkle import leaf_hash, root
from sessions.core.types import ChunkIndex, Hash, SessionId
from tests.chaos.ledger import Ledger

_AT_ONCE: Final = 8
_POLL_SECONDS: Final = 0.5
_OURS: Final = "chaos-"
_ONE_DAY: Final = timedelta(days=1)


@dataclass(slots=True)
class Verdict:
    """What is wrong, by kind; nothing is, when all are empty."""

    lost: list[str] = field(default_factory=list)
    """Chunks that were acknowledged and are nowhere, of a session that is not sealed."""
    left_out: list[str] = field(default_factory=list)
    """Chunks that were acknowledged, and the session was sealed without them."""
    unreadable: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    """Metadata, or terms of keeping, that were acknowledged and are not in force."""
    unkept: list[str] = field(default_factory=list)
    """Seals that were acknowledged (202, or 200), of sessions that are not sealed."""
    undrained: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def kinds(self) -> dict[str, list[str]]:
        """What is wrong, by kind."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "figures"}

    @property
    def wrong(self) -> list[str]:
        """All of it."""
        return [text for found in self.kinds.values() for text in found]


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

    def drain(self, processors: list[Replica], wait_seconds: float) -> None:
        """Wait until no spool holds anything, and until every session is sealed that is to be."""
        deadline = time.monotonic() + wait_seconds
        for one in processors:
            if not wait_until(lambda one=one: one.metric("lucid_spool_entries") == 0, deadline - time.monotonic()):
                held = one.metric("lucid_spool_entries")
                self.verdict.undrained.append(f"{one.name}: its spool holds {held:g} entries after {wait_seconds:g} s")
            self.verdict.figures["set aside by processors"] += int(one.metric("lucid_spool_quarantine_entries"))
        with httpx.Client(timeout=60, trust_env=False) as http:
            for session in self._ledger.plans.keys() - self._ledger.given_up:
                while self._status(http, session) != "sealed":
                    if time.monotonic() > deadline:
                        how = "202" if session in self._ledger.queued else "200"
                        self.verdict.unkept.append(f"{session}: its seal was answered {how}, and it is not sealed")
                        break
                    time.sleep(_POLL_SECONDS)

    def _get(self, http: httpx.Client, service: str, path: str, role: str) -> httpx.Response:
        url = self._stack.processor_url if service == "processor" else self._stack.storage_url
        headers = {"authorization": f"Bearer {self._stack.tokens[role]}"}
        return http.get(f"{url}{path}", headers=headers)

    def _status(self, http: httpx.Client, session: str) -> str:
        answer = self._get(http, "storage", f"/api/v1/sessions/{session}", "audit")
        return str(answer.json().get("status", "")) if answer.status_code == httpx.codes.OK else ""

    def _session(self, session: str, deadline: float) -> None:
        verdict, path = self.verdict, f"/api/v1/sessions/{session}"
        acknowledged = self._ledger.of_session(session)
        with httpx.Client(timeout=60, trust_env=False) as http:
            answer = self._get(http, "storage", path, "audit")
            if answer.status_code != httpx.codes.OK:
                if acknowledged:
                    verdict.lost.append(
                        f"{session}: {len(acknowledged)} chunks, the session answers {answer.text[:200]}"
                    )
                return
            view = answer.json()
            sealed = view["status"] == "sealed"
            there = self._records(session)
            self._chunks(http, session, there, sealed)
            self._content(http, session, there.keys(), sealed)
            self._metadata(session, view)
            if not sealed:
                verdict.figures["sessions not sealed"] += 1
                return
            verdict.figures["sessions sealed"] += 1
            if acknowledged - there.keys():
                names = {str(one["name"]) for one in self._processors(http)}
                named = any(name in answer.text for name in names)
                verdict.figures["left out, and the session names a processor"] += named
            report = self._report(http, session, deadline)
        if report.verdict != "proven":
            steps = "; ".join(step.text for step in report.steps if step.outcome.value == "failed")
            verdict.unproven.append(f"{session}: its receipt is {report.verdict}: {steps}")
        verdict.figures["receipts verified"] += report.verdict == "proven"

    def _processors(self, http: httpx.Client) -> list[dict[str, Any]]:
        answer = self._get(http, "storage", "/api/v1/processors", "audit")
        return list(answer.json()["processors"]) if answer.status_code == httpx.codes.OK else []

    def _records(self, session: str) -> dict[int, Hash]:
        with Client(self._stack.processor_url, self._stack.storage_url, token=self._stack.tokens["audit"]) as client:
            return {record.index: record.envelope_sha256 for record in client.chunks(session)}

    def _chunks(self, http: httpx.Client, session: str, there: dict[int, Hash], sealed: bool) -> None:
        verdict, plan = self.verdict, self._ledger.plans[session]
        gone = verdict.left_out if sealed else verdict.lost
        for index in sorted(self._ledger.of_session(session)):
            acknowledged = self._ledger.stored[session].get(index)
            if index not in there:
                gone.append(f"{session}/{index}: was acknowledged and is not there")
            elif acknowledged not in (None, there[index].hex()):
                verdict.altered.append(f"{session}/{index}: another envelope than was acknowledged")
        if extra := there.keys() - set(range(plan.chunk_count)):
            verdict.duplicated.append(f"{session}: chunks that nobody recorded: {sorted(extra)[:5]}")
        leaves: dict[int, Hash] = {}
        for index in sorted(there):
            envelope = self._get(
                http, "storage", f"/api/v1/sessions/{session}/chunks/{index}/envelope", "audit"
            ).content
            found = fingerprint(SessionId(session), ChunkIndex(index), envelope)
            if found.envelope_sha256 != there[index]:
                verdict.altered.append(f"{session}/{index}: the envelope is not the one of its record")
            leaves[index] = Hash(found.leaf_hash)
        verdict.figures["chunks compared"] += len(there)
        if sealed:
            manifest = self._get(http, "storage", f"/api/v1/sessions/{session}/manifest", "audit").json()
            gaps = {index for first, last in manifest["missing"] for index in range(first, last + 1)}
            leaves |= {index: leaf_hash(missing_leaf_input(SessionId(session), index)) for index in gaps}
            whole = list(range(manifest["chunk_count"]))
            stated = sorted(leaves) == whole and not gaps & there.keys()
            if not stated or manifest["root"] != root([leaves[index] for index in whole]).hex():
                verdict.altered.append(f"{session}: the manifest does not state what is stored")

    def _content(self, http: httpx.Client, session: str, there: Any, sealed: bool) -> None:
        """What is replayed is what was recorded: of a sealed session all at once, else chunk by chunk."""
        verdict, plan, path = self.verdict, self._ledger.plans[session], f"/api/v1/sessions/{session}"
        mine = [index for index in sorted(there) if index < plan.chunk_count]
        if sealed:
            try:
                content = self._get(http, "processor", f"{path}/content", "replay")
            except httpx.TransportError:
                pass  # it breaks off: which chunk it is, is found out below
            else:
                verdict.figures["plaintext bytes compared"] += len(content.content)
                if content.status_code == httpx.codes.OK and content.content == b"".join(map(plan.chunk, mine)):
                    return
        for index in mine:
            answer = self._get(http, "processor", f"{path}/chunks/{index}", "replay")
            if answer.status_code != httpx.codes.OK:
                said = f"{answer.status_code} {answer.text[:200]}"
                verdict.unreadable.append(f"{session}/{index}: its replay answers {said}")
            elif answer.content != plan.chunk(index):
                verdict.altered.append(f"{session}/{index}: its replay has other bytes than were recorded")
            elif sealed:
                continue
            verdict.figures["plaintext bytes compared"] += len(answer.content)
        if sealed and len(mine) == len(there):
            verdict.figures["replays as a whole that fail"] += 1

    def _metadata(self, session: str, view: dict[str, Any]) -> None:
        wanted, verdict = self._ledger.metadata.get(session), self.verdict
        if wanted is None:
            return
        verdict.figures["metadata compared"] += 1
        if view["metadata"] != wanted:
            verdict.metadata.append(f"{session}: {wanted} were acknowledged, and it has {str(view['metadata'])[:200]}")
            return
        if view["status"] == "sealed":
            with httpx.Client(timeout=60, trust_env=False) as http:
                manifest = self._get(http, "storage", f"/api/v1/sessions/{session}/manifest", "audit").json()
            if manifest["metadata_sha256"] != sha256(rfc8785.dumps(wanted)).hexdigest():
                verdict.metadata.append(f"{session}: its manifest has the hash of other metadata")
            if (days := self._ledger.plans[session].retain_days) is not None:
                until, sealed = view["retained_until"], datetime.fromisoformat(view["sealed_at"])
                asked = sealed + timedelta(days=days)
                if until is None or abs(datetime.fromisoformat(until) - asked) > _ONE_DAY:
                    verdict.metadata.append(f"{session}: is kept until {until}, and {days} days were acknowledged")

    def _report(self, http: httpx.Client, session: str, deadline: float) -> Report:
        """What becomes of the receipt; what the chain lost after it was confirmed is anchored again."""
        while True:
            receipt = self._get(http, "storage", f"/api/v1/sessions/{session}/receipt", "audit").content
            report = verify(Request(receipt, node_url=self._stack.rpc_url))
            if report.verdict == "proven" or time.monotonic() > deadline:
                return report
            time.sleep(1)

    def _batches(self) -> None:
        """Each sealed session is in one batch, whoever recorded it."""
        with Client(self._stack.processor_url, self._stack.storage_url, token=self._stack.tokens["audit"]) as client:
            anchors = [client.anchor(one.root) for one in client.anchors()]
            where = Counter(session for one in anchors for session in one.sessions or ())
            sealed = {one.session_id for one in client.list_sessions(status="sealed")}
        for session in sorted(sealed | where.keys()):
            # Those of others may just have been sealed, and wait for the next batch.
            if where[session] > 1 or (session in self._ledger.plans and where[session] != 1):
                self.verdict.duplicated.append(f"{session}: is in {where[session]} batches")
        self.verdict.figures["batches"] = len(anchors)

    def _documents(self) -> None:
        """There are as many records as chunks; bodies beyond that are a crash's left-overs, which prove nothing."""
        ours = {"_id.s": {"$regex": f"^{_OURS}"}}
        with MongoClient[dict[str, Any]](self._database_url) as client:
            database = client[self._stack.env["storage"]["MONGODB_DATABASE"]]
            records, bodies = (database[name].count_documents(ours) for name in ("chunks", "bodies"))
        compared = self.verdict.figures["chunks compared"]
        if records != compared:
            self.verdict.duplicated.append(f"{records} records of {compared} chunks")
        self.verdict.figures["bodies left over"] = bodies - records
