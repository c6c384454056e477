from sessions.storage.chunk_limits import ChunkLimits
from sessions.storage.processors import MAX_PROCESSORS


def test_processors_with_another_limit_are_named_while_they_report() -> None:
    now = [0.0]
    limits = ChunkLimits(1000, lambda: now[0])
    for name, limit in (("a", 1000), ("b", None), ("c", 400)):
        limits.heard(name, limit)
    assert limits.check().status == "degraded"
    assert limits.check().detail == "CHUNK_MAX_BYTES: it is 1000 here and 400 at c; set all of them alike"
    limits.heard("c", 1000)
    assert limits.check().status == "ok"
    limits.heard("c", 400)
    now[0] = 61
    assert limits.check().status == "ok", "it reports no more"


def test_what_is_remembered_is_bounded() -> None:
    limits = ChunkLimits(1000)
    for number in range(2 * MAX_PROCESSORS):
        limits.heard(str(number), 5)
    assert len(limits._others) == MAX_PROCESSORS
