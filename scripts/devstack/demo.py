"""`scripts/demo [FILE]`: record, seal, anchor, verify and replay, with real parts and real figures."""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from scripts.devstack import cli, material
from scripts.devstack import folder as folders
from scripts.devstack.folder import BusyError
from scripts.devstack.process import ROOT, StartError
from scripts.devstack.stack import Stack
from sessions.client import Client, ClientError
from sessions.client.recording import Recording
from sessions.client.verifying import Outcome, Request, verify
from sessions.core.receipt import Receipt

_PASSING: Final = ("replayed", "envelopes")
"""Folders that are needed while it runs only."""

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_COLUMNS: Final = 78
_ANCHOR_SECONDS: Final = 60.0


class DemoError(RuntimeError):
    """Something is not as it was promised."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit status: 0 when every byte came back and every check held.
    """
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what to record; else the demo makes some")
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo", help="where it works (default: .demo)")
    options = parser.parse_args(arguments)
    folder: Path = options.dir.absolute()
    cli.interrupt_on_signals()
    began = time.monotonic()
    try:
        with folders.hold(folder, "demo", ".demo-lock"):
            _run(folder, options.file)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; nothing was left running", file=sys.stderr)
        return 130
    except (DemoError, StartError, BusyError, ClientError, OSError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        if isinstance(error, StartError) and error.tail:
            print(textwrap.indent(error.tail, "  | "), file=sys.stderr)
        return 1
    _next_steps(folder, time.monotonic() - began)
    return 0


def _run(folder: Path, file: Path | None) -> None:
    if file is not None and not file.is_file():
        raise DemoError(f"{file} is not a file")
    if left := Stack.load(folder):
        left.stop()  # a demo that was killed
    for name in ("recordings", "receipts", *_PASSING):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    stack = Stack(folder)
    try:
        _heading("Start", "a MongoDB, an EVM node, the contract and both services")
        began = time.monotonic()
        stack.start()
        _fact("ready after", f"{time.monotonic() - began:.1f} s")
        _fact("contract", f"{stack.contract} on chain {stack.chain_id}")
        _fact("processor", f"{stack.processor_url}  holds the keys")
        _fact("storage", f"{stack.storage_url}  holds none")
        sources = [file] if file else _make_sources(folder)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        sessions = {f"demo-{stamp}-{_slug(source.name)}": source for source in sources}
        for name, source in sessions.items():
            _record(stack, name, source)
        for name, source in sessions.items():
            request = _fetch_proof(stack, name, _fetch_receipt(stack, name))
            _verify(replace(request, metadata=json.dumps(_metadata(source)).encode()))
            _tamper(request)
        for name, source in sessions.items():
            _replay(stack, name, source)
    finally:
        stack.stop()
        for data in ("mongo", "chain", *_PASSING):
            shutil.rmtree(folder / data, ignore_errors=True)


def _make_sources(folder: Path) -> list[Path]:
    _heading("Make", "something to record (name a file to use that instead)")
    cast, screen = folder / "recordings" / "terminal.cast", folder / "recordings" / "screen.bgra"
    commands = material.record_terminal(cast)
    _fact(cast.name, f"{_size(cast.stat().st_size)}, {commands} commands in a terminal, asciicast v2")
    frames = material.draw_screen(screen)
    picture = f"{material.WIDTH}x{material.HEIGHT}"
    _fact(screen.name, f"{_size(screen.stat().st_size)}, {frames} frames of {picture} with moving tiles")
    return [cast, screen]


def _metadata(source: Path) -> dict[str, str]:
    return {"file": source.name}


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80] or "file"


def _record(stack: Stack, name: str, source: Path) -> Recording:
    _heading("Record", source.name)
    _fact("session", name)
    with Client(stack.processor_url, token=stack.tokens["record"]) as client:
        began = time.monotonic()
        done = client.record(source, name, metadata=_metadata(source))
        seconds = time.monotonic() - began
    manifest = done.seal.manifest
    plain, sealed = manifest.plaintext_bytes, manifest.envelope_bytes
    if (plain, manifest.chunk_count) != (source.stat().st_size, done.chunk_count):
        raise DemoError(f"{name}: {plain} bytes were sealed and {source.stat().st_size} are in {source}")
    speed = f", {plain / _MIB / seconds:.0f} MiB/s with the seal" if plain >= _MIB else ""
    _fact("sent", f"{_size(plain)} in {_count(manifest.chunk_count, 'chunk')}, {seconds:.2f} s{speed}")
    _fact("kept", f"{_size(sealed)} encrypted" + (f", {100 * sealed / plain:.1f} % of that" if plain >= _KIB else ""))
    _fact("root", done.seal.root.hex())
    return done


def _fetch_receipt(stack: Stack, name: str) -> Receipt:
    _heading("Anchor", name)
    began = time.monotonic()
    with Client(stack.processor_url, stack.storage_url, token=stack.tokens["audit"]) as client:
        receipt = client.receipt(name, wait_seconds=_ANCHOR_SECONDS, poll_seconds=0.2)
        batch, anchor = receipt.batch, receipt.anchor
        if batch is None or anchor.state != "confirmed" or anchor.transaction is None:
            raise DemoError(f"the anchor of {name} is still {anchor.state}: see {stack.log('storage')}")
        gas = client.anchor(batch.root).gas_used
    _fact("confirmed", f"after {time.monotonic() - began:.1f} s")
    _fact("batch", f"session {batch.index + 1} of {batch.size}, root")
    _fact("", batch.root.hex())
    _fact("transaction", anchor.transaction.hex())
    _fact("block", f"{anchor.block_number}, {gas:,} gas" if gas else str(anchor.block_number))
    return receipt


def _fetch_proof(stack: Stack, name: str, receipt: Receipt) -> Request:
    """Put all that a third party needs into files."""
    path, envelopes = stack.folder / "receipts" / f"{name}.json", stack.folder / "envelopes" / name
    path.write_text(json.dumps(receipt.to_json(), indent=2) + "\n")
    with Client(stack.processor_url, stack.storage_url, token=stack.tokens["audit"]) as client:
        count, size = client.envelopes(name, envelopes)
    _heading("Verify", "with these files and a node of the chain; no service, no key")
    _fact("receipt", f"{cli.short(path)}")
    _fact("envelopes", f"{_count(count, 'file')}, {_size(size)}, encrypted")
    return Request(
        receipt=path.read_bytes(),
        envelopes=envelopes,
        node_url=stack.rpc_url,
        publisher=bytes.fromhex(stack.publisher[2:]),
        contract=bytes.fromhex(stack.contract[2:]),
    )


def _verify(request: Request) -> None:
    report = verify(request)
    for step in report.steps:
        _paragraph(f"[{step.outcome.value}] {step.text}")
    if not report.anchor_proven or report.failed:
        raise DemoError(f"the receipt was not proven: {report.verdict}")


def _tamper(request: Request) -> None:
    """Change one byte of one envelope, and see that it is found."""
    assert request.envelopes is not None
    files = sorted(request.envelopes.glob("*.lse"))
    if not files:
        return
    victim = files[len(files) // 2]
    changed = bytearray(victim.read_bytes())
    changed[-1] ^= 1
    victim.write_bytes(changed)
    _heading("Tamper", f"one bit of {victim.name} is changed, and it is verified again")
    failed = [step for step in verify(request).steps if step.outcome is Outcome.FAILED]
    if not failed:
        raise DemoError("a changed envelope was not found")
    _paragraph(f"[{failed[0].outcome.value}] {failed[0].text}")


def _replay(stack: Stack, name: str, source: Path) -> None:
    _heading("Replay", name)
    target = stack.folder / "replayed" / _slug(source.name)
    with Client(stack.processor_url, token=stack.tokens["replay"]) as client:
        began = time.monotonic()
        fetched = client.replay(name, target)
        seconds = time.monotonic() - began
    speed = f", {fetched / _MIB / seconds:.0f} MiB/s" if fetched >= _MIB else ""
    _fact("fetched", f"{_size(fetched)}, decrypted and checked, {seconds:.2f} s{speed}")
    before, after = _sha256(source), _sha256(target)
    _fact("SHA-256", before)
    _fact("replayed", after)
    compared = subprocess.run(["cmp", "--", str(source), str(target)], capture_output=True, text=True, check=False)
    if before != after or compared.returncode:
        raise DemoError(f"what came back of {source} differs: {compared.stdout or compared.stderr}")
    _fact("cmp", "identical, byte for byte")
    target.unlink()


def _next_steps(folder: Path, seconds: float) -> None:
    shown = cli.short(folder)
    print(f"\nDone in {seconds:.1f} s; everything was stopped again. To go on:")
    for command, what in (
        ("scripts/demo FILE", "the same with a file of yours"),
        (f"less {shown}/receipts/*.json", "what a third party keeps"),
        (f"less {shown}/storage.log", "what a service said, one JSON object a line"),
        ("scripts/stack start", "a stack that stays; then scripts/stack status"),
        (".venv/bin/lucid-sessions --help", "the command line of recorder and auditor"),
        ("scripts/test", "every test that this machine can run"),
    ):
        print(f"  {command:32} {what}")


def _heading(word: str, rest: str) -> None:
    print(f"\n{word}: {rest}"[: _COLUMNS + 1], flush=True)


def _fact(name: str, value: str) -> None:
    print(f"  {name:13} {value}", flush=True)


def _paragraph(text: str) -> None:
    lines = textwrap.wrap(text, _COLUMNS - 2, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    print("\n".join(lines), flush=True)


def _size(size: int) -> str:
    if size < _KIB:
        return _count(size, "byte")
    return f"{size / _KIB:.1f} KiB" if size < _MIB else f"{size / _MIB:.1f} MiB"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
