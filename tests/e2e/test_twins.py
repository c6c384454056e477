"""Two services with different limits on a chunk: found when they meet, and no chunk is acknowledged that cannot be kept."""

import time
from pathlib import Path

import httpx

from scripts.devstack.stack import Stack

MIB = 1024 * 1024


def _check(url: str) -> dict[str, str]:
    end = time.monotonic() + 15
    while True:
        found = httpx.get(f"{url}/health", trust_env=False).json()["checks"]["chunk-limit"]
        if found["status"] != "ok" or time.monotonic() > end:
            return dict(found)
        time.sleep(0.2)


def test_different_limits_are_named_by_both_services(tmp_path: Path) -> None:
    settings = {"processor": {"CHUNK_MAX_BYTES": str(32 * MIB)}, "storage": {"CHUNK_MAX_BYTES": str(MIB)}}
    stack = Stack(tmp_path / "stack", settings=settings)
    stack.start()
    try:
        for url in (stack.processor_url, stack.storage_url):
            found = _check(url)
            assert found["status"] == "degraded"
            assert found["detail"].startswith("CHUNK_MAX_BYTES: it is ")
        headers = {"authorization": f"Bearer {stack.tokens['record']}"}
        url = f"{stack.processor_url}/api/v1/sessions/twins/chunks"
        large = httpx.put(f"{url}/0", content=bytes(20 * MIB), headers=headers, trust_env=False, timeout=60)
        assert (large.status_code, large.json()["code"], large.json()["limit_bytes"]) == (413, "body-too-large", MIB)
        assert (
            httpx.put(f"{url}/0", content=bytes(MIB), headers=headers, trust_env=False, timeout=60).status_code == 201
        )
    finally:
        stack.stop()
