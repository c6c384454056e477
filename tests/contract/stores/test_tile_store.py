"""TileStore: one suite for the twin and for MongoDB in both topologies."""

from sessions.core.types import SessionId
from sessions.storage.store import TileStore

A = SessionId("a")


async def test_what_is_put_can_be_got(tile_store: TileStore) -> None:
    await tile_store.put(A, "one", [(1, 0, b"x" * 8192), (1, 1, b"y" * 32), (2, 2**40, b"z" * 32)])
    places = {(1, 0): b"x" * 8192, (1, 1): b"y" * 32, (2, 2**40): b"z" * 32}
    assert await tile_store.get(A, "one", places) == places
    for place, hashes in places.items():
        assert await tile_store.get(A, "one", [place]) == {place: hashes}
    assert await tile_store.get(A, "one", [(1, 1), (1, 2), (3, 0)]) == {(1, 1): b"y" * 32}
    assert await tile_store.get(A, "one", []) == {}


async def test_nothing_is_put(tile_store: TileStore) -> None:
    await tile_store.put(A, "one", [])
    assert await tile_store.get(A, "one", [(1, 0)]) == {}


async def test_the_first_put_of_a_tile_stays(tile_store: TileStore) -> None:
    await tile_store.put(A, "one", [(1, 0, b"first" + bytes(27))])
    await tile_store.put(A, "one", [(1, 0, b"second" + bytes(26)), (1, 1, bytes(32))])
    found = await tile_store.get(A, "one", [(1, 0), (1, 1)])
    assert found == {(1, 0): b"first" + bytes(27), (1, 1): bytes(32)}


async def test_attempts_and_sessions_are_apart(tile_store: TileStore) -> None:
    places = [(SessionId(name), attempt) for name in ("a", "a.", "aa") for attempt in ("1", "11", "1a")]
    for number, (name, attempt) in enumerate(places):
        await tile_store.put(name, attempt, [(1, 0, bytes([number]) * 32), (2, 7, bytes([number]) * 32)])
    await tile_store.drop(A, "1")
    await tile_store.drop(A, "1")
    for number, (name, attempt) in enumerate(places):
        expected = {} if number == 0 else dict.fromkeys([(1, 0), (2, 7)], bytes([number]) * 32)
        assert await tile_store.get(name, attempt, [(1, 0), (2, 7)]) == expected
