"""A name of MongoDB with two addresses, at the first of which nobody answers."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from sessions.storage.mongo import connect
from sessions.storage.mongo_url import SELECT_SERVER_MS

_DEAD, _ALIVE = "127.0.0.2", "127.0.0.1"


@pytest.fixture
def port(mongod_standalone) -> Iterator[int]:
    """The port of MongoDB. At `_DEAD` it belongs to a server with a full queue, so that connecting takes for ever."""
    found = urlsplit(mongod_standalone.url).port
    assert found is not None
    with ExitStack() as opened:
        opened.enter_context(socket.create_server((_DEAD, found), backlog=0))
        for _ in range(4):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((_DEAD, found))
        yield found


async def test_the_second_address_is_tried_before_the_search_for_a_server_ends(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> list[Any]:
        hosts = [_DEAD, _ALIVE] if host == "two.test" else [host]
        return [found for one in hosts for found in truly(one, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    client, _ = connect(f"mongodb://two.test:{port}", "lucid_addresses")
    began = time.monotonic()
    try:
        assert (await client.admin.command("ping"))["ok"] == 1
    finally:
        await client.close()
    assert time.monotonic() - began < SELECT_SERVER_MS / 1000
