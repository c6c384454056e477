"""A real desktop: a screen with something that moves on it, filmed, recorded as it is filmed, replayed and compared."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.devstack import process
from scripts.devstack.stack import Stack
from tests.e2e.conftest import session_name

pytestmark = pytest.mark.desktop

WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 15, 8
CLI = Path(sys.executable).with_name("lucid-sessions")


@pytest.fixture
def display(tmp_path: Path) -> Iterator[str]:
    """An X server of our own, with eyes that follow a pointer which moves, and a clock that ticks."""
    ours, theirs = os.pipe()
    screen = ["-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]
    # The server looks for a free display by itself, and says which when it is ready.
    command = ["Xvfb", "-displayfd", str(theirs), *screen]
    with (tmp_path / "xvfb.log").open("wb") as log:
        server = subprocess.Popen(command, pass_fds=[theirs], stdout=log, stderr=log)
    os.close(theirs)
    with os.fdopen(ours) as answer:
        number = answer.readline().strip()
    assert number, (tmp_path / "xvfb.log").read_text()
    name = f":{number}"
    programs = [
        ["xclock", "-update", "1", "-geometry", "300x300+10+10"],
        ["xeyes", "-geometry", "200x200+400+20"],
        ["xlogo", "-geometry", "120x80+450+250"],
    ]
    environment = {**os.environ, "DISPLAY": name}
    running = [process.start(program, tmp_path / f"{program[0]}.log", environment) for program in programs]
    try:
        yield name
        assert all(one.alive for one in running)
    finally:
        for one in running:
            one.stop()
        server.terminate()
        server.wait(10)


def _frames(file: Path) -> int:
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_frames"]
    command += ["-show_entries", "stream=nb_read_frames", "-of", "json", str(file)]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return int(json.loads(shown.stdout)["streams"][0]["nb_read_frames"])


def _film(display: str) -> list[str]:
    return [
        *("ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin"),
        *("-f", "x11grab", "-draw_mouse", "1", "-framerate", str(RATE), "-video_size", f"{WIDTH}x{HEIGHT}"),
        *("-i", display, "-t", str(SECONDS), "-c:v", "libx264", "-preset", "ultrafast", "-g", str(RATE)),
        # Fragments: a file that can be written to a pipe, and read as far as it has come.
        *("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-f", "mp4", "pipe:1"),
    ]


def test_a_desktop_comes_back_frame_for_frame(stack: Stack, display: str, tmp_path: Path) -> None:
    session, filmed, replayed = session_name("desktop"), tmp_path / "filmed.mp4", tmp_path / "replayed.mp4"
    settings = {
        **os.environ,
        "LUCID_PROCESSOR_URL": stack.processor_url,
        "LUCID_STORAGE_URL": stack.storage_url,
    }
    recorder = [str(CLI), "record", "-", "--session", session, "--chunk-bytes", "65536", "--json"]
    film = subprocess.Popen(_film(display), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tee = subprocess.Popen(["tee", str(filmed)], stdin=film.stdout, stdout=subprocess.PIPE)
    assert film.stdout is not None
    assert tee.stdout is not None
    recorded = subprocess.run(
        recorder,
        stdin=tee.stdout,
        env={**settings, "LUCID_TOKEN": stack.tokens["record"]},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    film.stdout.close()
    tee.stdout.close()
    assert film.stderr is not None
    with film.stderr as said:
        assert (film.wait(30), tee.wait(30)) == (0, 0), said.read()
    assert recorded.returncode == 0, recorded.stderr
    done = json.loads(recorded.stdout)
    assert done["plaintext_bytes"] == filmed.stat().st_size
    assert done["root_checked"]

    subprocess.run(
        [str(CLI), "replay", session, "-o", str(replayed)],
        env={**settings, "LUCID_TOKEN": stack.tokens["replay"]},
        capture_output=True,
        timeout=90,
        check=True,
    )
    assert replayed.read_bytes() == filmed.read_bytes()
    frames = _frames(replayed)
    print(f"{frames} frames in {done['chunk_count']} chunks, {done['plaintext_bytes']} bytes")
    assert frames == _frames(filmed)
    assert frames > RATE * SECONDS // 2
    assert _pictures(replayed) > 2


def _pictures(file: Path) -> int:
    """How many pictures differ from all others: something did move."""
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-f", "framemd5", "-"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return len({line.rpartition(",")[2].strip() for line in shown.stdout.splitlines() if line[:1] != "#"})
