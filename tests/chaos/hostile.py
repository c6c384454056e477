"""Clients that wish the others ill, with tokens that are good: one that records, and one stolen from a processor.

Nothing that they do may cost a recorder anything. They keep to what costs nothing by contract: they open no session of
a recorder, send no chunk to an index before its recorder has had it stored, and ask for no seal that could be granted.
"""

import asyncio
import base64
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx

from sessions.core import frames
from sessions.core.envelope import Codec, Header
from sessions.core.types import ChunkIndex, DekId, SessionId
from tests.chaos.content import Plan
from tests.chaos.ledger import Ledger

_TIMEOUT_SECONDS: Final = 8.0
_PAUSE_SECONDS: Final = 0.8
_TOO_MANY_CHUNKS: Final = 500
"""More than any recorder's session has, so that a seal with this count is never granted."""
_CLAIMED_BYTES: Final = 2**62
_DEPTHS: Final = (31, 33, 250, 450, 900)


def junk(session: str, index: int, dek_id: bytes, claimed_bytes: int) -> bytes:
    """An envelope that no key opens, which claims to hold so many bytes."""
    header = Header(Codec.ZSTD, DekId(dek_id), os.urandom(12), ChunkIndex(index), claimed_bytes, SessionId(session))
    return header.to_bytes() + os.urandom(64)


def deep(depth: int) -> dict[str, Any]:
    """Metadata so deep."""
    found: Any = "bottom"
    for _ in range(depth - 1):
        found = [found]
    return {"a": found}


class Hostile:
    """One of them, at work until told to stop."""

    def __init__(
        self, number: int, seed: int, ledger: Ledger, *, processors: Sequence[str], storage: str, tokens: dict[str, str]
    ) -> None:
        """`processors` and `storage` are addresses, `tokens` those of the roles `record` and `processor`."""
        self._name = f"hostile-{seed}-{number}"
        self._ledger = ledger
        self._draw = random.Random(f"{seed}/hostile/{number}")
        self._processors, self._storage, self._tokens = processors, storage, tokens
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._number = 0

    async def run(self, go_on: Callable[[], bool]) -> None:
        """Do one thing after the other."""
        acts: list[Callable[[], Awaitable[None]]] = [
            self._deep_metadata,
            self._large_metadata,
            self._wrong_seals,
            self._conflicts,
            self._own_conflicts,
            self._junk_without_key,
            self._junk_that_claims_much,
        ]
        async with self._http:
            while go_on():
                for act in self._draw.sample(acts, len(acts)):
                    await act()
                    await asyncio.sleep(_PAUSE_SECONDS * self._draw.random() * 2)
                    if not go_on():
                        break

    async def _ask(self, method: str, path: str, *, role: str = "record", **options: Any) -> httpx.Response | None:
        """Ask once. A 500 is wrong whoever asks."""
        url = self._storage if role == "processor" else self._draw.choice(self._processors)
        headers = {"authorization": f"Bearer {self._tokens[role]}"}
        try:
            answer = await self._http.request(method, f"{url}/api/v1{path}", headers=headers, **options)
        except httpx.TransportError:
            self._ledger.counts["hostile: no answer"] += 1
            return None
        self._ledger.counts[f"hostile: {answer.status_code}"] += 1
        if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
            self._ledger.violations.append(f"to a hostile client, {method} {path}: 500 {answer.text[:300]}")
        return answer

    def _new(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _victim(self) -> tuple[Plan, int] | None:
        """A session of a recorder, and a chunk of it that is stored for good."""
        known = [(session, stored) for session, stored in self._ledger.stored.items() if stored]
        if not known:
            return None
        session, stored = self._draw.choice(known[-16:])
        return self._ledger.plans[session], self._draw.choice(sorted(stored))

    async def _deep_metadata(self) -> None:
        """Metadata that can be stored and not be served, and a chunk for such a session."""
        path = f"/sessions/{self._new()}"
        await self._ask("PUT", path, json={"metadata": deep(self._draw.choice(_DEPTHS))})
        await self._ask("GET", path)
        await self._ask("PUT", f"{path}/chunks/0", content=b"poisoned")
        await self._ask("GET", path)
        await self._ask("PUT", f"{path}/chunks/0", content=b"poisoned otherwise")
        await self._ask("POST", f"{path}/seal", json={})

    async def _large_metadata(self) -> None:
        """Metadata that are small as they are sent, and large as JSON."""
        path = f"/sessions/{self._new()}"
        await self._ask("PUT", path, json={"metadata": {"a": "\x7f" * 64_000}})
        await self._ask("PUT", f"{path}/chunks/0", content=b"large")

    async def _wrong_seals(self) -> None:
        """Seals with a count that is wrong: of an own session and of recorders' sessions."""
        own = self._new()
        await self._ask("PUT", f"/sessions/{own}/chunks/1", content=b"a gap before it")
        victims = [found[0].session_id for _ in range(3) if (found := self._victim())]
        for session in (own, *victims):
            await self._ask("POST", f"/sessions/{session}/seal", json={"chunk_count": _TOO_MANY_CHUNKS})

    async def _conflicts(self) -> None:
        """Other content for what a recorder has stored, through either processor."""
        if found := self._victim():
            victim, index = found
            other = victim.chunk(index) + b"!"
            answer = await self._ask("PUT", f"/sessions/{victim.session_id}/chunks/{index}", content=other)
            if answer is not None and answer.is_success and answer.json().get("durability") == "stored":
                self._ledger.violations.append(f"{victim.session_id}/{index}: other content was stored")

    async def _own_conflicts(self) -> None:
        """Two contents for each index of an own session, as they come."""
        path = f"/sessions/{self._new()}"
        for index in range(4):
            for content in (b"one", b"other"):
                await self._ask("PUT", f"{path}/chunks/{index}", content=content)
        await self._ask("POST", f"{path}/seal", json={"chunk_count": 4})

    async def _submit(self, envelope: bytes) -> str:
        """Hand an envelope to storage as a processor does; what became of it."""
        answer = await self._ask("POST", "/envelopes", role="processor", content=frames.join([envelope]))
        return str(answer.json()["results"][0]["result"]) if answer is not None and answer.is_success else ""

    async def _junk_without_key(self) -> None:
        """Envelopes under a key that no ring has, for an own session and for a recorder's."""
        own = self._new()
        await self._ask("PUT", f"/sessions/{own}/chunks/0", content=b"own")
        sessions = [own, *([found[0].session_id] if (found := self._victim()) else [])]
        for session in sessions:
            index = self._draw.randrange(_TOO_MANY_CHUNKS)
            result = await self._submit(junk(session, index, os.urandom(16), 10))
            if result == "stored":
                self._ledger.violations.append(f"{session}/{index}: an envelope under an unknown key was stored")

    async def _junk_that_claims_much(self) -> None:
        """An envelope under the session's own key that claims to hold more than fits anywhere, and a seal over it."""
        own = self._new()
        await self._ask("PUT", f"/sessions/{own}/chunks/0", content=b"own")
        answer = await self._ask("GET", f"/sessions/{own}", role="processor")
        keys = answer.json().get("keys") if answer is not None and answer.is_success else None
        for key in keys or ():
            await self._submit(junk(own, 1, base64.b64decode(key["dek_id"]), _CLAIMED_BYTES))
        await self._ask("POST", f"/sessions/{own}/seal", json={})
