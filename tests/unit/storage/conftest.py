"""Storage's domain on twins, behind a database that is ready."""

import pytest

from sessions.storage.mongo import Readiness
from tests.unit.storage.chunks import House


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def readiness() -> Readiness:
    found = Readiness(None)
    found.established.set()
    return found
