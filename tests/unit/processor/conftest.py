"""A processor's parts over HTTP on session-storage, which runs on its twins."""

import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from sessions.processor.content import Content
from sessions.processor.key_rings import KeyRings
from sessions.processor.keys import FileKeyWrapper
from sessions.processor.pipeline import Submitter
from sessions.processor.recording import Recording
from sessions.processor.storage_client import StorageClient
from sessions.runtime.budget import ByteBudget
from tests.unit.processor.servers import MIB, TOKEN, Script, serving, storage_app
from tests.unit.storage.chunks import House


@dataclass
class Parts:
    """One processor, inside."""

    storage: StorageClient
    rings: KeyRings
    recording: Recording
    content: Content
    budget: ByteBudget


def parts_of(storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor) -> Parts:
    rings = KeyRings(wrapper, storage, 100)
    recording = Recording(rings, Submitter(storage), storage, executor, 3)
    budget = ByteBudget(8 * MIB)
    return Parts(storage, rings, recording, Content(storage, recording, budget), budget)


@pytest.fixture(scope="module")
def wrapper() -> FileKeyWrapper:
    return FileKeyWrapper({"one": os.urandom(32), "two": os.urandom(32)})


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
async def storage(house: House) -> AsyncIterator[StorageClient]:
    async with serving(storage_app(house)) as url, StorageClient(url, TOKEN, 20) as client:
        yield client


@pytest.fixture
def parts(storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor) -> Parts:
    return parts_of(storage, wrapper, executor)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def scripted(script: Script) -> AsyncIterator[StorageClient]:
    """A client of a server that answers what `script` says."""
    async with serving(script) as url, StorageClient(url + "/", TOKEN, 5) as client:
        yield client
