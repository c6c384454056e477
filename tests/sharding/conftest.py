"""One sharded cluster for all tests here, and the stack on it."""

from collections.abc import Iterator

import pytest

from scripts.devstack.mongod import Mongod
from scripts.devstack.stack import Stack
from tests.sharding.cluster import Cluster
from tests.sharding.router import router

DATABASE = "lucid_sharded"


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="package")
def mongos_url(cluster: Cluster) -> Iterator[str]:
    with router(cluster) as url:
        yield url


@pytest.fixture(scope="package")
def sharded_stack(tmp_path_factory: pytest.TempPathFactory, mongos_url: str) -> Iterator[Stack]:
    """It is asked for when the database has been sharded."""
    settings = {"MONGODB_DATABASE": DATABASE, "ANCHOR_INTERVAL_SECONDS": "1"}
    one = Stack(tmp_path_factory.mktemp("stack-sharded"), settings={"storage": settings})
    one.mongod = Mongod(None, url=mongos_url)
    one.start()
    try:
        yield one
    finally:
        one.stop()
