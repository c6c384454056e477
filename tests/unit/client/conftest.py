"""A fresh pair of fake services for each test, and clients of them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from sessions.client import AsyncClient, RetryPolicy
from tests.unit.client.fake import TOKEN, Fake, serve

QUICK = RetryPolicy(budget_seconds=2.0, wait_initial_seconds=0.005, wait_max_seconds=0.02)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, list[Fake]]]:
    """One server for all tests, and the place for the services that it stands for now."""
    current: list[Fake] = []

    async def endpoint(request):
        return await current[-1](request)

    with serve(endpoint) as url:
        yield url, current


@pytest.fixture
def fake(server: tuple[str, list[Fake]]) -> Fake:
    url, current = server
    current.append(Fake(url=url))
    return current[-1]


@pytest.fixture
async def client(fake: Fake) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(fake.url, fake.url, token=TOKEN, retry=QUICK) as one:
        yield one
