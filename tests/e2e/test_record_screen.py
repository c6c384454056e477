"""The example recorder films a screen while the processor dies, and while it stays away.

For longer, and more at once: LUCID_RECORDER_SECONDS=60 LUCID_RECORDERS=4 scripts/test tests/e2e/test_record_screen.py
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.devstack.process import ROOT
from scripts.devstack.services import Secrets
from scripts.devstack.stack import Stack
from sessions.client import Client
from sessions.client.verifying import Request, verify
from tests.conftest import Figure
from tests.e2e.conftest import session_name
from tests.e2e.test_desktop import HEIGHT, RATE, WIDTH, _frames, display

__all__ = ["display"]
pytestmark = pytest.mark.desktop

SECONDS = float(os.environ.get("LUCID_RECORDER_SECONDS", "6"))
CHUNK_BYTES = 16 * 1024  # small, so that a short film has many
RECORDERS = int(os.environ.get("LUCID_RECORDERS", "2"))
EXAMPLE = ROOT / "examples" / "record_screen.py"


def _settings(stack: Stack) -> dict[str, str]:
    token = Secrets(stack.folder / "secrets").operator_token
    own = {
        "LUCID_PROCESSOR_URL": stack.processor_url,
        "LUCID_STORAGE_URL": stack.storage_url,
        "LUCID_TOKEN_FILE": str(token),
    }
    return {**os.environ, **own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def _start(stack: Stack, folder: Path, display: str, session: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE), "--display", display, "--size", f"{WIDTH}x{HEIGHT}", "--rate", str(RATE)]
    command += ["--session", session, "--keep", "--chunk-bytes", str(CHUNK_BYTES), *more]
    return subprocess.Popen(
        command, cwd=folder, env=_settings(stack), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait(recorder: subprocess.Popen[str], seconds: float = SECONDS + 100) -> tuple[int, str, str]:
    try:
        out, err = recorder.communicate(timeout=seconds)
    finally:
        recorder.kill()
    return recorder.returncode, out, err


def _comes(file: Path, size: int, recorder: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait until there is so much of the film."""
    until = time.monotonic() + seconds
    while not (file.exists() and file.stat().st_size > size):
        assert recorder.poll() is None, _wait(recorder)
        assert time.monotonic() < until, f"no film in {file}"
        time.sleep(0.05)


def _assert_kept(stack: Stack, session: str, film: Path, folder: Path) -> None:
    """It is replayed as it was filmed, and its receipt is proven by the envelopes and the chain."""
    with Client(
        stack.processor_url, stack.storage_url, token=Path(_settings(stack)["LUCID_TOKEN_FILE"]).read_text().strip()
    ) as client:
        client.replay(session, folder / f"{session}.back")
        receipt = client.receipt(session, wait_seconds=60)
        client.envelopes(session, folder / f"{session}.envelopes")
    assert (folder / f"{session}.back").read_bytes() == film.read_bytes()
    assert receipt.manifest.chunk_count == -(-film.stat().st_size // CHUNK_BYTES)
    report = verify(
        Request(
            receipt=json.dumps(receipt.to_json()).encode(),
            envelopes=folder / f"{session}.envelopes",
            node_url=stack.rpc_url,
        )
    )
    assert (report.failed, report.anchor_proven) == (False, True), report.steps


@pytest.mark.timeout(SECONDS + 300)
def test_films_go_on_while_the_processor_dies(stack: Stack, display: str, tmp_path: Path, figure: Figure) -> None:
    sessions = [session_name("screen") for _ in range(RECORDERS)]
    films = [tmp_path / f"{session}.mp4" for session in sessions]
    recorders = [_start(stack, tmp_path, display, session, "--seconds", str(SECONDS)) for session in sessions]
    for film, recorder in zip(films, recorders, strict=True):
        _comes(film, 0, recorder)
    time.sleep(SECONDS / 4)
    stack.kill("processor", signal.SIGKILL)
    before = [film.stat().st_size for film in films]
    try:
        for film, recorder, size in zip(films, recorders, before, strict=True):
            _comes(film, size, recorder)  # the film goes on meanwhile
    finally:
        stack.resume("processor")
    for session, film, recorder in zip(sessions, films, recorders, strict=True):
        status, out, err = _wait(recorder)
        assert status == 0, err
        assert out.startswith(f"session {session}: ")
        assert _frames(film) > RATE * SECONDS // 2
        _assert_kept(stack, session, film, tmp_path)
    total = sum(film.stat().st_size for film in films)
    figure(
        f"record_screen: {RECORDERS} films of {SECONDS:g} s, {total} bytes, over a crash of the processor, identical"
    )


def test_a_film_whose_service_stays_away_is_made_and_can_be_sent_later(
    stack: Stack, display: str, tmp_path: Path
) -> None:
    session = session_name("screen")
    film = tmp_path / f"{session}.mp4"
    recorder = _start(stack, tmp_path, display, session, "--patience", "0.5")
    _comes(film, 0, recorder)
    stack.kill("processor", signal.SIGKILL)
    try:
        _comes(film, film.stat().st_size, recorder)
        assert recorder.stderr is not None
        said = [recorder.stderr.readline() for _ in range(3)]
        assert "the film goes on" in said[2], said
        recorder.send_signal(signal.SIGINT)  # and then it ends
        status, _, err = _wait(recorder)
    finally:
        stack.resume("processor")
    assert (status, "Traceback" in err) == (1, False), err
    command = shlex.split(err.partition("send the rest: ")[2])
    subprocess.run(command, cwd=tmp_path, env=_settings(stack), capture_output=True, timeout=90, check=True)
    _assert_kept(stack, session, film, tmp_path)


def test_what_cannot_be_filmed_is_said_and_nothing_is_recorded(stack: Stack, tmp_path: Path) -> None:
    session = session_name("screen")
    status, _, err = _wait(_start(stack, tmp_path, ":99999", session))
    assert (status, "nothing was recorded" in err, "Traceback" in err) == (1, True, False), err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / f"{session}.mp4").touch()
    status, _, err = _wait(_start(stack, tmp_path, ":99999", session))
    assert (status, "is there already" in err) == (2, True), err
