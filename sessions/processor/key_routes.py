"""Keys over HTTP, for the operator: what there is under which KEK, and rotation step by step."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request

from sessions.core.audit import Action
from sessions.processor.models import KeyStatus, RotateRequest, RotationStep
from sessions.processor.rotation import STEP_MAX_RINGS, Rotation
from sessions.runtime import audit
from sessions.runtime.auth import Role, allow
from sessions.runtime.json_route import JsonRoute


def router(rotation: Rotation) -> APIRouter:
    """All routes under /api/v1/keys."""
    routes = APIRouter(prefix="/api/v1/keys", tags=["keys"], route_class=JsonRoute)

    @routes.get("", dependencies=[Depends(allow(Role.ADMIN, act=Action.KEYS_STATUS))], response_model=KeyStatus)
    async def status(http: Request) -> Any:
        """Which KEK is active, how many key rings are under each, and which are sealed to no recovery recipient."""
        found = await rotation.status()
        await audit.of(http).allowed(http.scope)
        return found

    @routes.post(
        "/rotate", dependencies=[Depends(allow(Role.ADMIN, act=Action.KEYS_ROTATE))], response_model=RotationStep
    )
    async def rotate(http: Request, request: RotateRequest | None = None) -> Any:
        """Wrap the keys of some sessions anew under the active KEK; go on with `next_cursor` until it is null."""
        wanted = request or RotateRequest(limit=STEP_MAX_RINGS)
        async with audit.of(http).change(http.scope):
            step = await rotation.step(wanted.cursor, wanted.limit)
        return asdict(step)

    return routes
