"""What a client asks of session-storage: lists, manifests, receipts, proofs, envelopes, anchors, legal holds."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from sessions.client import answers
from sessions.client.answers import AnchorRecord, ChunkRecord, SessionSummary
from sessions.client.collecting import collect
from sessions.client.errors import BadAnswerError
from sessions.client.paging import walk
from sessions.client.transport import MAX_JSON_BYTES, OneStorage, session_path
from sessions.core import manifest as manifests
from sessions.core import proof as proofs
from sessions.core import receipt as receipts
from sessions.core.envelope import MAX_HEADER_BYTES, TAG_BYTES
from sessions.core.manifest import Manifest
from sessions.core.proof import ChunkProof
from sessions.core.receipt import AnchorState, Receipt
from sessions.core.types import CHUNK_MAX_BYTES_LIMIT, chunk_index
from sessions.core.types import session_id as checked_session_id

FETCHES_IN_FLIGHT_DEFAULT: Final = 4
_PAGE_ITEMS: Final = 1000
_ENVELOPE_MAX_BYTES: Final = CHUNK_MAX_BYTES_LIMIT + MAX_HEADER_BYTES + TAG_BYTES


class StorageCalls(OneStorage):
    """The calls to session-storage; `AsyncClient` has them."""

    async def hold(self, session_id: str, *, held: bool) -> None:
        """Put a legal hold on a session, or take it off."""
        await self._storage.body("PUT", f"{session_path(session_id)}/hold", MAX_JSON_BYTES, json={"held": held})

    async def session_page(
        self,
        *,
        status: str | None = None,
        opened_after: str | None = None,
        opened_before: str | None = None,
        limit: int = _PAGE_ITEMS,
        cursor: str | None = None,
    ) -> tuple[list[SessionSummary], str | None]:
        """One page of sessions, newest first, and the cursor of the next page. Times are RFC 3339."""
        wanted = {
            "status": status,
            "opened_after": opened_after,
            "opened_before": opened_before,
            "limit": limit,
            "cursor": cursor,
        }
        params = {name: value for name, value in wanted.items() if value is not None}
        return await self._storage.json(
            "GET", "/api/v1/sessions", lambda value, _: answers.session_page(value), params=params
        )

    async def list_sessions(self, **wanted: Any) -> AsyncIterator[SessionSummary]:
        """All sessions, newest first, page by page; takes what `session_page` takes."""
        start = wanted.pop("cursor", None)

        async def page(cursor: str | None) -> tuple[list[SessionSummary], str | None]:
            return await self.session_page(**wanted, cursor=cursor)

        async for item in walk("the list of sessions", page, start):
            yield item

    async def receipt(
        self,
        session_id: str,
        *,
        wait_seconds: float = 0.0,
        poll_seconds: float = 2.0,
        on_wait: Callable[[str], None] | None = None,
    ) -> Receipt:
        """The receipt of a sealed session. With `wait_seconds`, waits as long for the anchor to be confirmed.

        When that time is up, the receipt is given as it is; look at its `anchor.state`.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            path = f"{session_path(session_id)}/receipt"
            answer = await self._storage.json("GET", path, lambda value, _: receipts.from_json(value))
            if answer.manifest.session_id != session_id:
                raise BadAnswerError(f"the receipt of {session_id} was asked for, and another one came")
            left = deadline - time.monotonic()
            if answer.anchor.state is AnchorState.CONFIRMED or left <= 0:
                return answer
            if on_wait is not None:
                on_wait(answer.anchor.state.value)
            await asyncio.sleep(min(poll_seconds, left))

    async def proof(self, session_id: str, index: int) -> ChunkProof:
        """The proof that a chunk is in its session's tree; it was verified."""
        path = f"{session_path(session_id)}/chunks/{chunk_index(index)}/proof"

        def read(value: object, _: int) -> ChunkProof:
            proof = proofs.from_json(value)
            proof.verify()
            return proof

        answer = await self._storage.json("GET", path, read)
        if (answer.session_id, answer.index) != (session_id, index):
            raise BadAnswerError(f"the proof of chunk {index} of {session_id} was asked for, and another one came")
        return answer

    async def manifest(self, session_id: str) -> Manifest:
        """The manifest of a sealed session, which came in its canonical bytes."""
        body, _ = await self._storage.body("GET", f"{session_path(session_id)}/manifest", MAX_JSON_BYTES)
        try:
            return manifests.from_bytes(body)
        except ValueError as error:
            raise BadAnswerError(f"the manifest of {session_id} is not one: {error}") from error

    async def chunks(self, session_id: str, *, start: int = 0) -> AsyncIterator[ChunkRecord]:
        """The stored chunks of a session, from index `start`, ascending."""
        path, at, last = f"{session_path(session_id)}/chunks", start, start - 1
        while True:
            params = {"start": at, "limit": _PAGE_ITEMS}
            items, following = await self._storage.json(
                "GET", path, lambda value, _: answers.chunk_page(value), params=params
            )
            for item in items:
                if item.index <= last:
                    raise BadAnswerError("the list of chunks is not ascending")
                last = item.index
                yield item
            if following is None:
                return
            if following <= at:
                raise BadAnswerError("the list of chunks does not come to an end")
            at = following

    async def envelope(self, session_id: str, index: int, *, max_bytes: int = _ENVELOPE_MAX_BYTES) -> bytes:
        """The sealed bytes of one chunk, of at most `max_bytes`."""
        path = f"{session_path(session_id)}/chunks/{chunk_index(index)}/envelope"
        return (await self._storage.body("GET", path, max_bytes))[0]

    async def envelopes(
        self,
        session_id: str,
        folder: str | os.PathLike[str],
        *,
        in_flight: int = FETCHES_IN_FLIGHT_DEFAULT,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[int, int]:
        """Fetch all envelopes into a folder, each checked; how many there are, and their bytes.

        Files that an earlier attempt fetched are kept. `progress(count, bytes)` is called as they come in.
        """

        async def fetch(index: int, max_bytes: int) -> bytes:
            return await self.envelope(session_id, index, max_bytes=max_bytes)

        return await collect(
            checked_session_id(session_id),
            self.chunks(session_id),
            fetch,
            Path(folder),
            in_flight=in_flight,
            progress=progress,
        )

    async def anchors(self) -> AsyncIterator[AnchorRecord]:
        """All anchors, newest first."""

        async def page(cursor: str | None) -> tuple[list[AnchorRecord], str | None]:
            params = {"limit": 100} | ({} if cursor is None else {"cursor": cursor})
            return await self._storage.json(
                "GET", "/api/v1/anchors", lambda value, _: answers.anchor_page(value), params=params
            )

        async for item in walk("the list of anchors", page):
            yield item

    async def anchor(self, root: bytes) -> AnchorRecord:
        """One anchor by its batch root, with the ids of its sessions (the first 1000)."""
        return await self._storage.json(
            "GET", f"/api/v1/anchors/{root.hex()}", lambda value, _: answers.anchor_record(value)
        )
