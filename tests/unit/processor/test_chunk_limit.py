from structlog.testing import capture_logs

from sessions.processor.chunk_limit import ChunkLimit


def test_the_lower_of_both_limits_holds() -> None:
    limit = ChunkLimit(1000)
    assert (limit.bytes, limit.check().status) == (1000, "ok")
    with capture_logs() as logs:
        for storage, both, status in ((None, 1000, "ok"), (400, 400, "degraded"), (400, 400, "degraded")):
            limit.heard(storage)
            assert (limit.bytes, limit.check().status) == (both, status)
    assert [line["event"] for line in logs] == ["chunk_limits_differ"], "each limit is logged once"
    assert "CHUNK_MAX_BYTES: it is 1000 here and 400 at session-storage" in limit.check().detail
    limit.heard(2000)
    assert (limit.bytes, limit.check().status) == (1000, "degraded")
    limit.heard(1000)
    assert (limit.bytes, limit.check().status) == (1000, "ok")
