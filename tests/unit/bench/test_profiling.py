"""Samples of stacks, by stage."""

from pathlib import Path

import pytest

from bench import profiling
from bench.profiling import REST, Profile, ProfileError, shares, stage_of

_SEAL = "main (sessions/processor/main.py:1);record (sessions/processor/recording.py:9);seal (sessions/processor/crypt.py:34)"
_LOG = (
    "main (sessions/processor/main.py:1);serve (uvicorn/server.py:1);info (structlog/_native.py:3);dumps (json/x.py:1)"
)


@pytest.mark.parametrize(
    ("stack", "stage"),
    [
        (_SEAL, "zstd, AES-GCM"),
        (_LOG, "logs, metrics"),
        (f"{_SEAL};fingerprint (sessions/core/envelope.py:154)", "SHA-256"),
        ("run (uvicorn/server.py:72);run (asyncio/runners.py:118)", "event loop"),
        ("run (threading.py:1)", REST),
    ],
)
def test_the_innermost_frame_that_tells_a_stage(stack: str, stage: str) -> None:
    assert stage_of(reversed(stack.split(";"))) == stage


def test_shares_leave_out_threads_that_wait() -> None:
    idle = "run (threading.py:1);_worker (concurrent/futures/thread.py:81) 900"
    found = shares([f"{_SEAL} 30", f"{_LOG} 10", idle])
    assert found == {"zstd, AES-GCM": 0.75, "logs, metrics": 0.25}
    assert shares([idle]) == {}


def test_a_process_that_cannot_be_looked_into(tmp_path: Path) -> None:
    profile = Profile({"processor": 2**22 - 1, "storage": 2**22 - 2}, tmp_path)
    profile.start()
    with pytest.raises(ProfileError, match="cannot look into processor; root may"):
        profile.stop()


def test_without_the_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling.shutil, "which", lambda *_, **__: None)
    with pytest.raises(ProfileError, match="run scripts/setup"):
        Profile({"processor": 1, "storage": 1}, tmp_path).start()
