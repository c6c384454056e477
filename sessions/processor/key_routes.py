"""Keys over HTTP, for the operator: what there is under which KEK, and rotation step by step."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends

from sessions.processor.models import KeyStatus, RotateRequest, RotationStep
from sessions.processor.rotation import STEP_MAX_RINGS, Rotation
from sessions.runtime.auth import Role, allow
from sessions.runtime.body import JsonRoute


def router(rotation: Rotation) -> APIRouter:
    """All routes under /api/v1/keys."""
    by_admin = [Depends(allow(Role.ADMIN))]
    routes = APIRouter(prefix="/api/v1/keys", tags=["keys"], route_class=JsonRoute, dependencies=by_admin)

    @routes.get("", response_model=KeyStatus)
    async def status() -> Any:
        """Which KEK is active, how many key rings are under each, and which are sealed to no recovery recipient."""
        return await rotation.status()

    @routes.post("/rotate", response_model=RotationStep)
    async def rotate(request: RotateRequest | None = None) -> Any:
        """Wrap the keys of some sessions anew under the active KEK; go on with `next_cursor` until it is null."""
        wanted = request or RotateRequest(limit=STEP_MAX_RINGS)
        return asdict(await rotation.step(wanted.cursor, wanted.limit))

    return routes
