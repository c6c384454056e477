"""Client for session-storage. Every call is idempotent."""

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from sessions.core import frames
from sessions.core.audit import AuditEvent
from sessions.core.errors import FrameFormatError
from sessions.core.key_ring import KeyRing, WrappedDek
from sessions.core.types import SessionId, session_id
from sessions.processor.status_json import without_metadata
from sessions.processor.storage_answers import (
    FrameAnswer,
    KeyCounts,
    Keys,
    Replacement,
    ReportAnswer,
    SealAnswer,
    StoredChunk,
    key_json,
    read_keys,
)
from sessions.processor.storage_calls import (
    NoSuchRouteError,
    answered,
    object_of,
    overloaded,
    readiness,
    understood,
    why,
)
from sessions.processor.storage_errors import RequestFailedError
from sessions.processor.wire import CONNECT_SECONDS, Answer, NoRoomError, Wire, WireError
from sessions.runtime import tracing
from sessions.runtime.budget import ByteBudget
from sessions.runtime.errors import DomainError
from sessions.runtime.log import REQUEST_ID_HEADER, request_id
from sessions.runtime.metadata import canonical_metadata
from sessions.runtime.tasks import end_all

_CREATED: Final = 201
_ACCEPTED: Final = 202
SEAL_CONNECTIONS: Final = 16
"""Limit on the requests to seal sessions that are in flight; session-storage may hold each for seconds."""
_SEAL_WAIT_SECONDS: Final = 10.0
"""Longest time that a seal waits for one of them, in seconds. Recorders' tokens take turns."""
_STATUS_CONNECTIONS: Final = 8
_SUBMIT: Final = "/api/v1/envelopes?results=2"
"""`results=2`: this processor knows all results of today."""


class StorageClient:
    """session-storage, as the processor uses it.

    Every method raises `DomainError`: what storage answered, or `storage-unavailable` when it did not.
    """

    def __init__(self, url: str, token: str, timeout_seconds: float, tls: ssl.SSLContext | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self._wire = Wire(url, headers, timeout_seconds, tls)
        # Separate pools, so that uploads, probes and reports never queue behind other requests.
        self._submits = Wire(url, headers, timeout_seconds, tls)
        self._status = Wire(url, headers, timeout_seconds, tls, _STATUS_CONNECTIONS)
        self._seals = Wire(url, headers, timeout_seconds, tls, SEAL_CONNECTIONS)
        self._seal_turns = ByteBudget(SEAL_CONNECTIONS, min(_SEAL_WAIT_SECONDS, timeout_seconds))
        self._probe: asyncio.Task[str | None] | None = None

    async def __aenter__(self) -> Self:
        """Ready to use."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close the connections."""
        await end_all([self._probe] if self._probe is not None else [])
        for wire in (self._wire, self._submits, self._status, self._seals):
            wire.close()

    async def open(
        self, session_id: SessionId, metadata: Mapping[str, Any] | None, key: WrappedDek
    ) -> tuple[Keys, bool]:
        """Open a session, or find it open; gives its key ring, and whether it was opened now."""
        # Not escaped to ASCII, which makes six bytes of one: more than storage takes of what it would accept.
        said = b"null" if metadata is None else canonical_metadata(metadata)
        body = b'{"metadata":%b,"key":%b}' % (said, json.dumps(key_json(key)).encode())
        response = await self._call("PUT", f"/api/v1/sessions/{session_id}", body=body)
        with understood():
            keys = read_keys(response.json()["keys"])
        if not keys:
            raise RequestFailedError("session-storage answered with a session without a key")
        return keys, response.status == _CREATED

    async def add_key(self, session_id: SessionId, key: WrappedDek) -> None:
        """Add a key to a session's ring; one that is there already stays as it is."""
        response = await self._call("POST", f"/api/v1/sessions/{session_id}/keys", body=key_json(key))
        with understood():
            kept = {one.dek_id for one in read_keys(response.json()["keys"])}
        if key.dek_id not in kept:
            raise RequestFailedError("session-storage did not say that it has stored the key")

    async def session(self, session_id: SessionId) -> tuple[dict[str, Any], Keys]:
        """A session's status, and its key ring."""
        response = await self._call("GET", f"/api/v1/sessions/{session_id}")
        with understood():
            view = without_metadata(response.content)
            keys = read_keys(view.pop("keys"))
        if view.get("session_id") != session_id:
            raise RequestFailedError("session-storage answered with no status of this session")
        return view, keys

    async def metadata_sha256(self, session_id: SessionId) -> str:
        """The SHA-256, in hex, of the metadata that a session was sealed with."""
        response = await self._call("GET", f"/api/v1/sessions/{session_id}/manifest")
        with understood():
            return str(response.json()["metadata_sha256"])

    async def submit(self, envelopes: Sequence[bytes]) -> list[FrameAnswer]:
        """Store envelopes; one answer each."""
        pieces = frames.pieces(envelopes)
        headers = {"content-type": "application/octet-stream", REQUEST_ID_HEADER: request_id(), **tracing.headers()}
        response = await answered(lambda: self._submits.request("POST", _SUBMIT, pieces, headers))
        with understood():
            answers = [FrameAnswer(**answer) for answer in response.json()["results"]]
        if len(answers) != len(envelopes):
            raise RequestFailedError("session-storage answered for another number of envelopes")
        return answers

    async def seal(
        self, session_id: SessionId, chunk_count: int | None, *, owner: str = "", **claims: Any
    ) -> SealAnswer:
        """Seal a session: manifest, its hash, root. `claims` is what this processor says of itself, by name.

        Where many seals are in flight, their owners take turns.
        """
        body = {"chunk_count": chunk_count, "sealed_by": "recorder", **claims}
        try:
            await self._seal_turns.acquire(1, owner)
        except DomainError:
            raise overloaded("too many seals are in flight") from None
        try:
            response = await self._call("POST", f"/api/v1/sessions/{session_id}/seal", body=body, wire=self._seals)
        finally:
            self._seal_turns.release(1, owner)
        answer = object_of(response)
        with understood():
            if response.status != _ACCEPTED:
                _ = answer["root"], answer["manifest_sha256"]
                return SealAnswer(answer)
            return SealAnswer(None, [str(one["name"]) for one in answer["waiting_for"]])

    async def report(self, name: str, report: Mapping[str, Any]) -> ReportAnswer | None:
        """Report what the spool holds; None from a session-storage that is older and takes no reports."""
        try:
            response = await self._call("POST", f"/api/v1/processors/{name}/report", body=report, wire=self._status)
        except NoSuchRouteError:
            if (problem := await self.reachable()) is not None:  # a wrong path has no such route, either
                raise RequestFailedError(problem) from None
            return None
        with understood():
            answer = response.json()
            return ReportAnswer(
                asks={session_id(ask["session_id"]): str(ask["ask_id"]) for ask in answer["asks"]},
                asked={session_id(one): str(ask_id) for one, ask_id in answer["asked"].items()},
                shredded=[session_id(one) for one in answer["shredded"]],
                uptime_seconds=float(answer["uptime_seconds"]),
                generation=str(answer["generation"]),
                retain_days=int(answer["retain_days"]),
                chunk_max_bytes=int(answer["chunk_max_bytes"]) if "chunk_max_bytes" in answer else None,
            )

    async def say_goodbye(self, name: str, report: Mapping[str, Any]) -> None:
        """Send the last report once. A repeat could hide that session-storage has heard the first one.

        Raises:
            UnheardError: session-storage has not heard it; any other error leaves that open.
        """
        answer = await self._call(
            "POST", f"/api/v1/processors/{name}/report", body=report, wire=self._status, once=True
        )
        with understood():
            _ = answer.json()["asks"]

    async def chunks(self, session_id: SessionId, start: int, limit: int) -> tuple[list[StoredChunk], int | None]:
        """A page of chunk records, and where the next starts."""
        params = {"start": start, "limit": limit}
        response = await self._call("GET", f"/api/v1/sessions/{session_id}/chunks", params=params)
        with understood():
            page = response.json()
            return [StoredChunk(**chunk) for chunk in page["chunks"]], page["next_start"]

    async def envelope(self, session_id: SessionId, index: int) -> bytes:
        """An envelope's bytes."""
        return (await self._call("GET", f"/api/v1/sessions/{session_id}/chunks/{index}/envelope")).content

    async def envelopes(self, session_id: SessionId, start: int, limit: int) -> list[memoryview]:
        """Envelopes of the chunks from `start` on, in order of index: one at least, and at most `limit`.

        They are views into what was received: to keep one of them keeps all.
        """
        params = {"start": start, "limit": limit}
        response = await self._call("GET", f"/api/v1/sessions/{session_id}/envelopes", params=params)
        try:
            found = list(frames.split(response.content))
        except FrameFormatError as error:
            raise RequestFailedError(f"session-storage answered with no envelopes: {error}") from error
        if not 0 < len(found) <= limit:
            raise RequestFailedError("session-storage answered with another number of envelopes")
        return found

    async def shred(self, session_id: SessionId, requested_by: str) -> dict[str, Any]:
        """Shred a session for the holder of the token of that name; gives its status."""
        params = {"requested_by": requested_by}
        answer = object_of(await self._call("DELETE", f"/api/v1/sessions/{session_id}", params=params))
        if answer.get("session_id") != session_id:
            raise RequestFailedError("session-storage answered with no status of this session")
        return answer

    async def key_counts(self) -> KeyCounts:
        """How many key rings there are under which KEK, and sealed to which recipient."""
        response = await self._call("GET", "/api/v1/keys")
        with understood():
            counts = response.json()
            return KeyCounts(
                {entry["kek_id"]: int(entry["rings"]) for entry in counts["keks"]},
                {entry["recipient"]: int(entry["rings"]) for entry in counts["recipients"]},
                list(counts["unsealed"]),
            )

    async def outdated_rings(
        self, kek_id: str, recipient: str | None, cursor: str | None, limit: int
    ) -> tuple[list[KeyRing], str | None]:
        """Key rings that are not under this KEK or not sealed to this recipient, and where the next page starts."""
        wanted = {"kek_id": kek_id, "recipient": recipient, "cursor": cursor, "limit": limit}
        params = {name: value for name, value in wanted.items() if value is not None}
        response = await self._call("GET", "/api/v1/keys/outdated", params=params)
        with understood():
            page = response.json()
            rings = [KeyRing(session_id(ring["session_id"]), read_keys(ring["keys"])) for ring in page["rings"]]
            return rings, page["next_cursor"]

    async def replace_keys(self, replacements: Sequence[Replacement]) -> int:
        """Replace keys that are still as they were; gives how many were."""
        body = {"replacements": [one.to_json() for one in replacements]}
        response = await self._call("POST", "/api/v1/keys/replace", body=body)
        with understood():
            return int(response.json()["replaced"])

    async def write(self, events: Sequence[AuditEvent]) -> None:
        """Write audit events: `Sink` of the runtime."""
        body = {"events": [event.to_json() for event in events]}
        response = await self._call("POST", "/api/v1/audit-events", body=body)
        if object_of(response).get("stored") != len(events):
            raise RequestFailedError("session-storage did not say that it has stored the audit events")

    async def reachable(self) -> str | None:
        """Return None when storage can do its job, else the reason why not. Callers share a probe in flight."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._ready())
        return await asyncio.shield(self._probe)

    async def _ready(self) -> str | None:
        try:
            response = await self._status.request("GET", "/readyz", timeout_seconds=CONNECT_SECONDS)
        except NoRoomError:  # nothing is known about storage
            return None
        except WireError as error:
            return f"STORAGE_URL does not answer ({why(error)})"
        return readiness(response)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | bytes | None = None,
        wire: Wire | None = None,
        once: bool = False,
    ) -> Answer:
        headers = {REQUEST_ID_HEADER: request_id(), **tracing.headers()}
        pieces: tuple[bytes, ...] = ()
        if body is not None:
            headers["content-type"] = "application/json"
            pieces = (body if isinstance(body, bytes) else json.dumps(body).encode(),)
        target = f"{path}?{urlencode(params)}" if params else path
        chosen = wire or self._wire
        return await answered(lambda: chosen.request(method, target, pieces, headers), once=once)
