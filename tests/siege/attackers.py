"""Hostile clients, one kind at a time: `python -m tests.siege.attackers`, with its order as JSON on standard input."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.siege import half_core

_AGAIN_SECONDS: Final = 0.2
_SILENT_SECONDS: Final = 3600.0
_BOMB_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Attack:
    """Where to attack. `token` has the roles record, replay and audit; `session` is a long recording."""

    processor: str
    storage: str
    token: str
    session: str

    def head(self, method: str, path: str, *fields: str) -> bytes:
        """Return a request's head."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}", *fields]
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(url)
    return await asyncio.open_connection(address.hostname, address.port, limit=1024)


async def _idle(attack: Attack, url: str) -> None:
    """Open a connection and say nothing."""
    reader, writer = await _connect(url)
    await reader.read(1)
    writer.close()


async def _announced(attack: Attack, url: str) -> None:
    """Announce a body of 16 MiB, and send the first 1,000 bytes of it."""
    reader, writer = await _connect(url)
    path = f"/api/v1/sessions/evil-{id(writer)}/chunks/0" if url == attack.processor else "/api/v1/envelopes"
    writer.write(attack.head("PUT" if url == attack.processor else "POST", path, "Content-Length: 16777216"))
    writer.write(bytes(1000))
    await reader.read(1)
    writer.close()


async def _endless_head(attack: Attack, url: str) -> None:
    """Send a head that never ends."""
    _, writer = await _connect(url)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
    while True:
        writer.write(b"a:\r\n" * 4096)
        await writer.drain()


async def _bomb(attack: Attack, url: str) -> None:
    """Send JSON that grows fifty times when it is read."""
    reader, writer = await _connect(url)
    lists = b"[[]]," * (_BOMB_BYTES // 5) + b"[]"
    body = (
        b'{"session_id":"evil","chunks":[{"chunk_id":"a-1","chunk_data_base64":"","metadata":{"x":[' + lists + b"]}}]}"
    )
    fields = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    writer.write(attack.head("POST", "/api/v1/chunks/process-batch", *fields))
    writer.write(body)
    await writer.drain()
    await reader.read(1)
    writer.close()


async def _slow_question(attack: Attack, url: str) -> None:
    """Ask what takes the service long to answer."""
    reader, writer = await _connect(url)
    if url == attack.storage:
        writer.write(attack.head("GET", "/api/v1/sessions?limit=1000", "Connection: close"))
    else:
        writer.write(attack.head("POST", f"/api/v1/sessions/unknown-{id(writer)}/seal", "Content-Length: 0"))
    await reader.read(1)
    writer.close()


async def _stalled_reader(attack: Attack, url: str) -> None:
    """Ask for a long recording and read nothing of it."""
    _, writer = await _connect(url)
    path = "content" if url == attack.processor else "envelopes"
    writer.write(attack.head("GET", f"/api/v1/sessions/{attack.session}/{path}"))
    await asyncio.sleep(_SILENT_SECONDS)


KINDS: Final[dict[str, tuple[int, Callable[[Attack, str], Awaitable[None]]]]] = {
    "idle sockets": (1000, _idle),
    "announced bodies": (100, _announced),
    "heads without end": (16, _endless_head),
    "JSON bombs": (16, _bomb),
    "slow questions": (128, _slow_question),
    "stalled readers": (128, _stalled_reader),
}
"""Each kind of attack: how many clients of it there are at once, half of them at each service, and what one does."""


async def _again_and_again(attack: Attack, url: str, one: Callable[[Attack, str], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError):
            await one(attack, url)
        await asyncio.sleep(_AGAIN_SECONDS)


async def _all(attack: Attack, kind: str) -> None:
    count, one = KINDS[kind]
    urls = [attack.processor] if kind == "JSON bombs" else [attack.processor, attack.storage]
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(_again_and_again(attack, urls[number % len(urls)], one))


def main() -> None:
    """Attack until killed."""
    order = json.load(sys.stdin)
    kind, group = order.pop("kind"), order.pop("group")
    if group:
        half_core.join(Path(group))
    asyncio.run(_all(Attack(**order), kind))


if __name__ == "__main__":
    main()
