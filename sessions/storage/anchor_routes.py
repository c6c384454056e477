"""The anchors, for whoever audits."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query

from sessions.runtime.errors import DomainError
from sessions.runtime.json_route import JsonRoute
from sessions.runtime.models import HASH_PATTERN, Limit
from sessions.runtime.problems import responses
from sessions.storage import models
from sessions.storage.anchor import BatchReader
from sessions.storage.mongo import Readiness, translated
from sessions.storage.reads import Reads
from sessions.storage.routes import READERS


def router(batches: BatchReader, readiness: Readiness, head_block: Callable[[], int | None], reads: Reads) -> APIRouter:
    """All routes under /api/v1/anchors. `head_block` gives the chain's newest block, as far as it is known here."""

    async def ready() -> None:
        readiness.require()

    routes = APIRouter(
        prefix="/api/v1/anchors",
        tags=["anchors"],
        route_class=JsonRoute,
        dependencies=[Depends(READERS), Depends(ready)],
    )

    @routes.get("", dependencies=[Depends(reads.items())], response_model=models.AnchorPage)
    async def list_anchors(
        limit: Limit = 100, cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}$")] = None
    ) -> Any:
        """Batches and their transactions, newest first."""
        async with translated():
            found = await batches.list(limit, None if cursor is None else int(cursor))
        next_cursor = str(found[-1].sequence) if len(found) == limit else None
        return {
            "anchors": [batch.to_json() for batch in found],
            "next_cursor": next_cursor,
            "head_block": head_block(),
        }

    @routes.get("/{root}", response_model=models.AnchorWithSessions, responses=responses("anchor-not-found"))
    async def get_anchor(root: Annotated[str, Path(pattern=HASH_PATTERN, min_length=64, max_length=64)]) -> Any:
        """One batch, with its sessions."""
        async with translated():
            batch = await batches.get(bytes.fromhex(root))
        if batch is None:
            raise DomainError("anchor-not-found", f"no batch has the root {root}")
        return {**batch.to_json(), "sessions": list(batch.session_ids)}

    return routes
