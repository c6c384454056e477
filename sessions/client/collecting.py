"""Fetching all envelopes of a session into a folder, each checked against the list of chunks.

The folder also gets `leaf-hashes.txt`, one `INDEX HEX` a line. It proves nothing by itself; but when its tree has the
manifest's root, it lets a verifier say which envelope was altered.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from io import TextIOWrapper
from pathlib import Path

from sessions.client.answers import ChunkRecord
from sessions.client.envelope_check import LEAF_HASHES_FILE
from sessions.client.errors import BadAnswerError, TargetError
from sessions.client.targets import ANYBODY, create
from sessions.core.envelope import fingerprint
from sessions.core.types import SessionId

FetchEnvelope = Callable[[int, int], Awaitable[bytes]]
"""`fetch(index, max_bytes)` gives the bytes of one envelope."""


def envelope_name(index: int) -> str:
    """File name of an envelope: the index in 12 digits, so that names sort as indexes do."""
    return f"{index:012d}.lse"


async def collect(
    session: SessionId,
    records: AsyncIterator[ChunkRecord],
    fetch: FetchEnvelope,
    folder: Path,
    *,
    in_flight: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, int]:
    """Fetch envelopes into `folder`; how many there are, and their bytes. Those that are there already are kept.

    Raises:
        BadAnswerError: an envelope is not the one that the list names.
        TargetError: the folder cannot be written.
    """
    count, size = 0, 0
    part = folder / (LEAF_HASHES_FILE + ".part")

    async def one(record: ChunkRecord) -> None:
        target = folder / envelope_name(record.index)
        if target.is_file() and _matches(session, record, target.read_bytes()):
            return
        data = await fetch(record.index, record.envelope_bytes)
        if not _matches(session, record, data):
            raise BadAnswerError(f"envelope {record.index} is not the one that the list of chunks names")
        fresh = target.with_name(target.name + ".part")
        with create(fresh, ANYBODY) as file:
            file.write(data)
        fresh.replace(target)

    async def settle(group: list[ChunkRecord]) -> None:
        nonlocal count, size
        async with asyncio.TaskGroup() as tasks:
            for record in group:
                tasks.create_task(one(record))
        count, size = count + len(group), size + sum(record.envelope_bytes for record in group)
        if progress is not None:
            progress(count, size)

    try:
        folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - small local writes between requests
        with TextIOWrapper(create(part, ANYBODY), encoding="ascii") as leaves:
            group: list[ChunkRecord] = []
            async for record in records:
                leaves.write(f"{record.index} {record.leaf_hash.hex()}\n")
                group.append(record)
                if len(group) >= max(1, in_flight):
                    await settle(group)
                    group = []
            await settle(group)
        part.replace(folder / LEAF_HASHES_FILE)
    except OSError as error:
        raise TargetError(f"cannot write {error.filename or folder}: {error.strerror}") from error
    except BaseExceptionGroup as group_error:
        # The first of several that failed together says enough.
        first = group_error.exceptions[0]
        if isinstance(first, OSError):
            raise TargetError(f"cannot write {first.filename or folder}: {first.strerror}") from first
        raise first from None
    return count, size


def _matches(session: SessionId, record: ChunkRecord, data: bytes) -> bool:
    if hashlib.sha256(data).digest() != record.envelope_sha256:
        return False
    marks = fingerprint(session, record.index, data)
    return (marks.envelope_bytes, marks.leaf_hash) == (record.envelope_bytes, record.leaf_hash)
