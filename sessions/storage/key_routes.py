"""Key rings over HTTP: for the processor that rotates them, and for whoever exports one."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from sessions.core import key_ring
from sessions.core.audit import Action
from sessions.core.key_ring import KeyRing
from sessions.core.types import session_id
from sessions.runtime import audit
from sessions.runtime.audit import require_recording
from sessions.runtime.auth import Role, allow
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import SessionIdPath, checked
from sessions.runtime.problems import responses
from sessions.storage import cursors, key_models
from sessions.storage.key_rings import Group, Kind, Place, Rings, Target
from sessions.storage.ledger import Ledger
from sessions.storage.mongo import Readiness
from sessions.storage.reads import RING_BYTES, Reads


def encode_cursor(place: Place) -> str:
    """A page's end, opaque to clients."""
    return cursors.encode((place.group.kind.value, place.group.value, place.after))


def decode_cursor(text: str | None) -> Place | None:
    """Read a cursor.

    Raises:
        DomainError: `invalid-request`.
    """

    def read(kind: Any, value: Any, after: Any) -> Place:
        if not isinstance(value, str | None):
            raise TypeError("no value of a group")
        return Place(Group(Kind(kind), value), session_id(after))

    return cursors.decode(text, read)


def router(ledger: Ledger, rings: Rings, readiness: Readiness, reads: Reads) -> APIRouter:
    """All routes under /api/v1/keys, and a session's key ring."""

    async def ready() -> None:
        readiness.require()

    routes = APIRouter(prefix="/api/v1", tags=["keys"], route_class=JsonRoute)
    by_processor = [Depends(allow(Role.PROCESSOR)), Depends(ready)]

    @routes.get("/keys", dependencies=by_processor, response_model=key_models.RingCountsAnswer)
    async def counts() -> Any:
        """How many key rings there are under which KEK, and sealed to which recovery recipient."""
        found = await rings.counts()
        of = {kind: [(group.value, n) for group, n in found.groups if group.kind is kind] for kind in Kind}
        return {
            "keks": [{"kek_id": value, "rings": n} for value, n in of[Kind.KEK]],
            "recipients": [{"recipient": value, "rings": n} for value, n in of[Kind.RECIPIENT]],
            "unsealed": list(found.unsealed),
        }

    rings_of_page = [*by_processor, Depends(reads.items(RING_BYTES))]

    @routes.get("/keys/outdated", dependencies=rings_of_page, response_model=key_models.KeyRingPage)
    async def outdated(query: Annotated[key_models.OutdatedQuery, Query()]) -> Any:
        """Key rings that are not under this KEK, or not sealed to this recovery recipient."""
        target = Target(query.kek_id, query.recipient)
        page = await rings.outdated(target, decode_cursor(query.cursor), query.limit)
        following = page.following and encode_cursor(page.following)
        return {"rings": list(map(_ring_json, page.rings)), "next_cursor": following}

    @routes.post(
        "/keys/replace",
        dependencies=[Depends(allow(Role.PROCESSOR, act=Action.KEYS_REPLACE)), Depends(ready)],
        response_model=key_models.ReplaceAnswer,
    )
    async def replace(http: Request, request: key_models.ReplaceRequest) -> Any:
        """Replace keys that were wrapped anew, each only if it is still the one that is expected."""
        async with audit.of(http).change(http.scope):
            replaced = await rings.replace([one.to_replacement() for one in request.replacements])
        return {"replaced": replaced}

    @routes.get(
        "/sessions/{session_id}/keys",
        # Not for auditors: who has a copy of the ring undoes what shredding promises.
        dependencies=[Depends(allow(Role.ADMIN, Role.PROCESSOR, act=Action.KEYS_EXPORT)), Depends(ready)],
        response_model=key_models.KeyRingFile,
        responses=responses("session-not-found", "session-shredded", "session-reserved"),
    )
    async def get_key_ring(session_id: SessionIdPath, http: Request) -> Any:
        """A session's key ring, to be kept apart from it: with the recovery key it opens the session's envelopes."""
        record = await ledger.readable(require_recording(checked(session_id)))
        await audit.of(http).allowed(http.scope)
        return key_ring.to_json(KeyRing(record.session_id, record.keys))

    return routes


def _ring_json(ring: KeyRing) -> dict[str, Any]:
    return {"session_id": ring.session_id, "keys": list(map(key_ring.key_to_json, ring.keys))}
