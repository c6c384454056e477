import asyncio
from contextlib import suppress

import pytest
from fastapi import APIRouter
from starlette.responses import Response

from sessions import __version__
from sessions.runtime.app import HotRoute
from sessions.runtime.health import Check
from sessions.runtime.metrics import LOOP_LAG_SECONDS, watch_loop_lag
from tests.unit.runtime.apps import app_of, client_of


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([], "ok", 200),
        (["ok", "ok"], "ok", 200),
        (["ok", "degraded"], "degraded", 200),
        (["degraded", "failed", "ok"], "failed", 503),
    ],
)
async def test_health_is_as_good_as_the_worst_part(parts: list, status: str, code: int) -> None:
    checks = {f"part{number}": Check(part, f"detail {part}") for number, part in enumerate(parts)}
    async with client_of(app_of(checks=checks)) as client:
        for path in ("/health", "/readyz"):
            answer = await client.get(path)
            assert answer.status_code == code
            assert answer.json() == {
                "status": status,
                "service": "small",
                "version": __version__,
                "checks": {name: {"status": check.status, "detail": check.detail} for name, check in checks.items()},
            }
        alive = await client.get("/livez")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})


async def test_a_part_that_serves_no_requests_leaves_them_to_be_sent() -> None:
    checks = {"database": Check("ok"), "background": Check("failed", "x keeps failing", concerns_requests=False)}
    async with client_of(app_of(checks=checks)) as client:
        health, ready = await client.get("/health"), await client.get("/readyz")
    assert (health.status_code, health.json()["status"]) == (503, "failed")
    assert health.json()["checks"]["background"] == {"status": "failed", "detail": "x keeps failing"}
    assert (ready.status_code, ready.json()["checks"].keys()) == (200, {"database"})


async def test_metrics_are_in_the_prometheus_format() -> None:
    async with client_of(app_of()) as client:
        await client.get("/livez")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'lucid_request_duration_seconds_count{method="GET",route="/livez",status="200"}' in answer.text


async def test_the_loops_lag_is_measured() -> None:
    before = sum(bucket.get() for bucket in LOOP_LAG_SECONDS._buckets)
    watching = asyncio.create_task(watch_loop_lag())
    await asyncio.sleep(0.25)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert sum(bucket.get() for bucket in LOOP_LAG_SECONDS._buckets) >= before + 2


async def test_the_document_tells_of_all_routes() -> None:
    routes = APIRouter(prefix="/api/v1")

    @routes.get("/thing/{number}")
    async def thing(number: int) -> int:
        return number

    async def hot(scope, receive, send) -> None:
        await Response(b"hot")(scope, receive, send)

    class Hot:
        async def __call__(self, scope, receive, send) -> None:
            await hot(scope, receive, send)

    operation = {"summary": "hot", "responses": {"200": {"description": "hot"}}}
    app = app_of(routes, hot_routes=[(HotRoute("/api/v1/hot/{name}", Hot(), methods=["PUT"]), operation)])
    async with client_of(app) as client:
        document = (await client.get("/openapi.json")).json()
        assert (await client.get("/openapi.json")).json() == document
        assert (await client.put("/api/v1/hot/x")).text == "hot"
        text = (await client.get("/metrics")).text
    assert 'route="/api/v1/hot/{name}"' in text
    assert document["paths"]["/api/v1/hot/{name}"]["put"]["summary"] == "hot"
    get = document["paths"]["/api/v1/thing/{number}"]["get"]
    assert "422" not in get["responses"]
    assert get["responses"]["400"]["content"].keys() == {"application/problem+json"}
    assert get["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/livez"]["get"]
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
