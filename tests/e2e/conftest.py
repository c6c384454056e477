"""What the end-to-end tests share: the running stack, and plain HTTP to it."""

import os
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import httpx
import pytest

from scripts.devstack.stack import Stack

UNKNOWN_TOKEN = "lucid_" + "A" * 43


def session_name(prefix: str) -> str:
    """A session id that no other test uses."""
    return f"{prefix}-{token_hex(6)}"


class Api:
    """Both services over plain HTTP; a role's token is sent, none for the role None."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._http = httpx.Client(timeout=120, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def token(self, role: str) -> str:
        return self.stack.tokens.get(role, UNKNOWN_TOKEN)

    def processor(self, method: str, path: str, role: str | None = "record", **options: Any) -> httpx.Response:
        return self._send(self.stack.processor_url, method, path, role, options)

    def storage(self, method: str, path: str, role: str | None = "audit", **options: Any) -> httpx.Response:
        return self._send(self.stack.storage_url, method, path, role, options)

    def _send(self, url: str, method: str, path: str, role: str | None, options: dict[str, Any]) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["authorization"] = f"Bearer {self.token(role)}"
        answer = self._http.request(method, f"{url}{path}", headers=headers, **options)
        if answer.is_error or path == "/metrics":
            # Whatever they told is searched for secrets when all tests have run.
            with (self.stack.folder / "answers.log").open("ab") as told:
                told.write(f"{method} {url}{path}\n{answer.headers}\n".encode() + answer.content + b"\n")
        return answer

    def put_chunk(self, session: str, index: int, data: bytes, **options: Any) -> httpx.Response:
        return self.processor("PUT", f"/api/v1/sessions/{session}/chunks/{index}", content=data, **options)

    def record(self, session: str, chunks: list[bytes], *, seal: bool = True) -> None:
        """Record a session, and seal it."""
        for index, data in enumerate(chunks):
            answer = self.put_chunk(session, index, data)
            assert answer.status_code == 201, answer.text
        if seal:
            answer = self.processor("POST", f"/api/v1/sessions/{session}/seal", json={"chunk_count": len(chunks)})
            assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def api(stack: Stack) -> Iterator[Api]:
    """HTTP to the stack."""
    one = Api(stack)
    yield one
    for send in (one.processor, one.storage):
        send("GET", "/metrics", None)
    one.close()


def service_environment(own: dict[str, str]) -> dict[str, str]:
    """Environment of a service that a test starts itself: its settings, and what Python needs."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "TMPDIR", "LUCID_TEST_RUN") or name.startswith("LC_")
    }
    # The stack's own processor has the spool: another one would be refused.
    apart = {"SPOOL": "off"} if "SPOOL_DIR" in own else {}
    return {**passed_on, "PYTHONUNBUFFERED": "1", **own, **apart}
