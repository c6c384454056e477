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
_CREATED: Final = 201


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
class Work:
    """What to record, and where: the processor's URL and a token of the role `record`."""

    url: str
    token: str
    content: bytes
    chunk_bytes: int
    sessions: int
    prefix: str

    async def put(self, connection: Connection, session: int, index: int, chunk: memoryview) -> None:
        """Record a chunk.

        Raises:
            RuntimeError: it is not stored now.
        """
        path = f"/api/v1/sessions/{self.prefix}-{session}/chunks/{index}"
        status, answer = await connection.request("PUT", path, chunk)
        if status != _CREATED or json.loads(answer)["durability"] != "stored":
            raise RuntimeError(f"{path}: HTTP {status}: {answer[:300]!r}")


async def full(work: Work) -> dict[str, Any]:
    """Record everything as fast as it goes, one chunk of each session at a time."""
    taken: list[float] = []

    async def session(number: int, chunks: list[memoryview]) -> None:
        connection = Connection(work.url, work.token)
        for index, chunk in enumerate(chunks):
            began = time.perf_counter()
            await work.put(connection, number, index, chunk)
            taken.append(time.perf_counter() - began)
        await connection.close()

    shares, began = corpus.cut(work.content, work.chunk_bytes, work.sessions), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, chunks in enumerate(shares):
            group.create_task(session(number, chunks))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": len(work.content), "chunks": len(taken), "latencies": taken}


async def paced(work: Work, per_second: float, seconds: float) -> dict[str, Any]:
    """Record so many chunks a second in all, for so long, each session from a moment drawn by chance.

    A latency counts from the moment at which the chunk was due, so that a stall is not left out of the figures. Those
    of each session's first chunk, which opens it, are given apart as well.
    """
    draw, taken, view = random.Random(work.prefix), list[float](), memoryview(work.content)
    first = list[float]()
    gap, begin = work.sessions / per_second, time.perf_counter()

    async def session(number: int, due: float) -> None:
        connection, index = Connection(work.url, work.token), 0
        while due < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            at = draw.randrange(len(view) - work.chunk_bytes)
            await work.put(connection, number, index, view[at : at + work.chunk_bytes])
            taken.append(time.perf_counter() - due)
            if not index:
                first.append(taken[-1])
            index, due = index + 1, due + gap
        await connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(work.sessions):
            group.create_task(session(number, begin + draw.uniform(0, gap)))
    return {"seconds": time.perf_counter() - begin, "chunks": len(taken), "latencies": taken, "first": first}


def main() -> None:
    """Read what to do, do it, print what it took."""
    order = json.load(sys.stdin)
    content = b"".join(Path(path).read_bytes() for path in order["files"])
    work = Work(order["url"], order["token"], content, order["chunk_bytes"], order["sessions"], order["prefix"])
    plan = order.get("plan")
    json.dump(uvloop.run(paced(work, plan["per_second"], plan["seconds"]) if plan else full(work)), sys.stdout)


if __name__ == "__main__":
    main()
