#!/usr/bin/env python3
"""A recorder of the screen: films an X display with ffmpeg, and records the film while it is made.

    export LUCID_PROCESSOR_URL=http://127.0.0.1:8085 LUCID_TOKEN_FILE=token
    python3 examples/record_screen.py --display :0 --size 1280x720 --session desk-17-monday

It ends after --seconds, or by Ctrl-C or SIGTERM; then the session is sealed. What ffmpeg gives is written to a file at
once and sent from there, so that the film goes on while the service restarts or is away, and is caught up afterwards.
The file is deleted when the session is sealed. When the service stays away for longer than --patience, the film is made
to its end, the file stays, and the last line says which command sends the rest.
"""

import argparse
import asyncio
import os
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from sessions.client import AsyncClient, ClientError, RetryPolicy

READ_BYTES = 64 * 1024
LOOK_SECONDS = 0.1
"""How often the file is looked at, when all of it was sent."""


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Film an X display, and record the film.")
    parser.add_argument("--display", default=os.environ.get("DISPLAY", ":0"), help="X display (default: $DISPLAY)")
    parser.add_argument("--size", default="1280x720", help="width x height (default: 1280x720)")
    parser.add_argument("--rate", type=int, default=15, help="pictures a second (default: 15)")
    parser.add_argument("--seconds", type=float, help="how long (default: until Ctrl-C)")
    parser.add_argument("--chunk-bytes", type=int, default=256 * 1024, help="size of a chunk (default: 262144)")
    parser.add_argument("--session", help="id of the session (default: made up)")
    parser.add_argument("--file", type=Path, help="where the film is kept meanwhile (default: SESSION.mp4)")
    parser.add_argument("--keep", action="store_true", help="keep it afterwards, too")
    parser.add_argument(
        "--patience", type=float, default=600, help="seconds to try for without progress (default: 600)"
    )
    options = parser.parse_args()
    options.session = options.session or f"screen-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    options.file = options.file or Path(f"{options.session}.mp4")
    if missing := [name for name in ("LUCID_PROCESSOR_URL", "LUCID_TOKEN_FILE") if not os.environ.get(name)]:
        parser.error(f"set {' and '.join(missing)} in the environment")
    if options.file.exists():
        parser.error(f"{options.file} is there already: another --file, or another --session")
    return options


def film_command(options: argparse.Namespace) -> list[str]:
    """Ffmpeg, with the film on its stdout."""
    return [
        *("ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin"),
        *("-f", "x11grab", "-framerate", str(options.rate), "-video_size", options.size, "-i", options.display),
        *(("-t", str(options.seconds)) if options.seconds else ()),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", str(options.rate)),
        # Fragments of a second: what can be written to a pipe, and be read as far as it has come.
        *("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-f", "mp4", "pipe:1"),
    ]


async def keep(first: bytes, film: asyncio.StreamReader, file: Path, ended: asyncio.Event) -> None:
    """Write the film to the file, as fast as it comes: ffmpeg never waits for the network."""
    try:
        with file.open("wb") as kept:
            piece = first
            while piece:
                kept.write(piece)
                kept.flush()
                piece = await film.read(READ_BYTES)
    finally:
        ended.set()


async def growing(file: Path, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """What is in the file, and what comes to it, until the film has ended."""
    with file.open("rb") as kept:
        while True:
            last = ended.is_set()  # asked before the read, so that nothing comes between
            if piece := kept.read(READ_BYTES):
                yield piece
            elif last:
                return
            else:
                await asyncio.sleep(LOOK_SECONDS)


async def record(options: argparse.Namespace, ended: asyncio.Event) -> bool:
    """Send the film while it grows, and seal the session; whether that went well."""
    token = Path(os.environ["LUCID_TOKEN_FILE"]).read_text().strip()
    policy = RetryPolicy(budget_seconds=options.patience)
    async with AsyncClient(os.environ["LUCID_PROCESSOR_URL"], token=token, retry=policy) as client:
        try:
            done = await client.record(
                growing(options.file, ended),
                options.session,
                chunk_bytes=options.chunk_bytes,
                metadata={"recorder": "record_screen", "size": options.size, "rate": options.rate},
            )
        except ClientError as error:
            print(f"error: {error}", file=sys.stderr)
            if not ended.is_set():
                print(f"the film goes on, in {options.file}", file=sys.stderr)
            return False
    print(f"session {options.session}: {done.chunk_count} chunks, {done.plaintext_bytes} bytes, {done.seal.root.hex()}")
    return True


def end(film: Process) -> None:
    """Let ffmpeg write the end of its film."""
    if film.returncode is None:
        film.send_signal(signal.SIGINT)


async def main() -> int:
    """Film and record; the exit status."""
    options = arguments()
    # In a session of its own, so that a Ctrl-C reaches it through `end` only, once.
    film = await asyncio.create_subprocess_exec(*film_command(options), stdout=PIPE, start_new_session=True)
    assert film.stdout is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, film)
    first = await film.stdout.read(READ_BYTES)
    if not first:
        print(f"error: ffmpeg ended with status {await film.wait()}; nothing was recorded", file=sys.stderr)
        return 1
    print(f"session {options.session}", file=sys.stderr)
    options.file.touch(mode=0o600, exist_ok=False)
    ended = asyncio.Event()
    keeping = asyncio.create_task(keep(first, film.stdout, options.file, ended))
    recorded = await record(options, ended)
    try:
        await keeping
    except OSError as error:
        film.kill()  # nobody reads what it gives
        print(f"error: {options.file}: {error.strerror}; the film ends there", file=sys.stderr)
        recorded = False
    await film.wait()
    if not recorded:
        rest = f"lucid-sessions record {options.file} --session {options.session} --chunk-bytes {options.chunk_bytes}"
        print(f"send the rest: {rest}", file=sys.stderr)
        return 1
    if not options.keep:
        options.file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
