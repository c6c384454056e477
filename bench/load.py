"""A recorder of many sessions, that costs next to nothing: HTTP/1.1 by hand over kept connections.

A process of its own, so that its CPU time is not counted as anybody else's: `python -m bench.load`, told in JSON on
standard input what to do.
"""

import asyncio
import json
import random
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from bench import corpus

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: ([0-9]+)")
_HEAD_BYTES: Final = 64 * 1024


class Connection:
    """One kept connection to a service."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url)
        self._token = token
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, body: bytes | memoryview = b"", kind: str = ""
    ) -> tuple[int, bytes]:
        """Status and body of an answer that declares its length."""
        if self._reader is None or self._writer is None:
            host, port = self._address.hostname, self._address.port
            self._reader, self._writer = await asyncio.open_connection(host, port, limit=_HEAD_BYTES)
        head = f"{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self._token}\r\n"
        head += f"content-type: {kind}\r\n" if kind else ""
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode())
        if body:
            self._writer.write(body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        found = _LENGTH.search(answer)
        content = await self._reader.readexactly(int(found[1])) if found else b""
        return int(answer[9:12]), content

    async def close(self) -> None:
        """End it."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Target:
    """Where to record: the processor's URL and a token of the role `record`."""

    url: str
    token: str


async def _session(target: Target, name: str, chunks: list[memoryview], taken: list[float]) -> None:
    connection = Connection(target.url, target.token)
    for index, chunk in enumerate(chunks):
        began = time.perf_counter()
        status, answer = await connection.request("PUT", f"/api/v1/sessions/{name}/chunks/{index}", chunk)
        taken.append(time.perf_counter() - began)
        if status != 201 or json.loads(answer)["durability"] != "stored":  # noqa: PLR2004
            raise RuntimeError(f"chunk {index} of {name}: HTTP {status}: {answer[:300]!r}")
    await connection.close()


async def full(target: Target, content: bytes, chunk_bytes: int, sessions: int, prefix: str) -> dict[str, Any]:
    """Record everything as fast as it goes, one chunk of each session at a time."""
    shares, taken = corpus.cut(content, chunk_bytes, sessions), list[float]()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, chunks in enumerate(shares):
            group.create_task(_session(target, f"{prefix}-{number}", chunks, taken))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": len(content), "chunks": len(taken), "latencies": taken}


async def paced(
    target: Target, content: bytes, chunk_bytes: int, sessions: int, prefix: str, plan: Any
) -> dict[str, Any]:
    """Record `plan["per_second"]` chunks a second in all, for `plan["seconds"]`, at moments spread by chance.

    A latency counts from the moment at which the chunk was due, so that a stall is not left out of the figures.
    """
    draw, taken = random.Random(prefix), list[float]()
    gap, begin = sessions / plan["per_second"], time.perf_counter()

    async def session(number: int) -> None:
        connection, index = Connection(target.url, target.token), 0
        due = begin + draw.uniform(0, gap)
        while due < begin + plan["seconds"]:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            at = (number * 7919 + index * 104729) * 4096 % (len(content) - chunk_bytes)
            path = f"/api/v1/sessions/{prefix}-{number}/chunks/{index}"
            status, answer = await connection.request("PUT", path, memoryview(content)[at : at + chunk_bytes])
            if status != 201:  # noqa: PLR2004
                raise RuntimeError(f"chunk {index} of {number}: HTTP {status}: {answer[:300]!r}")
            taken.append(time.perf_counter() - due)
            index, due = index + 1, due + gap
        await connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(session(number))
    return {"seconds": time.perf_counter() - begin, "chunks": len(taken), "latencies": taken}


def main() -> None:
    """Read what to do, do it, print what it took."""
    order = json.load(sys.stdin)
    content = b"".join(Path(path).read_bytes() for path in order["files"])
    arguments = (Target(**order["target"]), content, order["chunk_bytes"], order["sessions"], order["prefix"])
    work = paced(*arguments, order["plan"]) if order.get("plan") else full(*arguments)
    json.dump(uvloop.run(work), sys.stdout)


if __name__ == "__main__":
    main()
