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


@pytest.fixture(scope="session")
async def whole_storage() -> AsyncIterator[tuple[House, str]]:
    """session-storage on twins, for all tests: to start a server takes longer than a test."""
    house = House()
    async with serving(storage_app(house)) as url:
        yield house, url


@pytest.fixture
def house(whole_storage: tuple[House, str]) -> House:
    """Its stores, empty."""
    whole_storage[0].clear()
    return whole_storage[0]


@pytest.fixture
def storage_url(house: House, whole_storage: tuple[House, str]) -> str:
    return whole_storage[1]


@pytest.fixture
async def storage(storage_url: str) -> AsyncIterator[StorageClient]:
    async with StorageClient(storage_url, TOKEN, 20) as client:
        yield client


@pytest.fixture
def parts(storage: StorageClient, wrapper: FileKeyWrapper, executor: ThreadPoolExecutor) -> Parts:
    return parts_of(storage, wrapper, executor)


@pytest.fixture(scope="session")
async def whole_script() -> AsyncIterator[tuple[Script, str]]:
    script = Script()
    async with serving(script) as url:
        yield script, url


@pytest.fixture
def script(whole_script: tuple[Script, str]) -> Script:
    """What a server that says what it is told answers, and what it was asked: empty."""
    whole_script[0].answers.clear()
    whole_script[0].requests.clear()
    return whole_script[0]


@pytest.fixture
async def scripted(script: Script, whole_script: tuple[Script, str]) -> AsyncIterator[StorageClient]:
    """A client of a server that answers what `script` says."""
    async with StorageClient(whole_script[1] + "/", TOKEN, 5) as client:
        yield client
