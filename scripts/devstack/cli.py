"""`scripts/stack`: start, stop and look at a development stack."""

import argparse
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

from scripts.devstack import folder as folders
from scripts.devstack.folder import BusyError
from scripts.devstack.process import ROOT, StartError
from scripts.devstack.services import SERVICES, Secrets, answers
from scripts.devstack.stack import PARTS, Stack

_SETTING = re.compile(r"(processor|storage):([A-Z][A-Z0-9_]*)=(.*)", re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, or 1 when something did not start or is down.
    """
    options = _parser().parse_args(arguments)
    interrupt_on_signals()
    try:
        if options.command == "start":
            return _start(options)
        return {"stop": _stop, "status": _status, "env": _env}[options.command](options.dir)
    except StartError as error:
        print(f"stack: {error}", file=sys.stderr)
        if error.tail:
            print("\n".join("  | " + line[:300] for line in error.tail.splitlines()), file=sys.stderr)
    except BusyError as error:
        print(f"stack: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stack: interrupted; nothing was left running", file=sys.stderr)
        return 130
    return 1


def interrupt_on_signals() -> None:
    """Make SIGINT and SIGTERM end the script the same way, and only once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # nothing shall interrupt the clearing up
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/stack", description="A mongod, an EVM node, the contract and both services, on loopback ports."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("start", "start a stack, from empty, and return when it is ready"),
        ("stop", "stop it; data and logs stay until the next start"),
        ("status", "show what runs; exit status 1 when something is down"),
        ("env", 'print settings of the command line for it, to be used as: eval "$(scripts/stack env)"'),
    ):
        one = commands.add_parser(command, help=text)
        one.add_argument(
            "--dir",
            type=Path,
            default=Path(os.environ.get("LUCID_STACK_DIR") or ROOT / ".stack"),
            help="its folder (default: what LUCID_STACK_DIR names, else .stack)",
        )
        if command == "start":
            one.add_argument("--mongo", choices=("standalone", "replset"), default="standalone")
            one.add_argument(
                "--env",
                action="append",
                default=[],
                type=_setting,
                metavar="SERVICE:NAME=VALUE",
                help="a further setting of processor or storage; repeatable",
            )
    return parser


def _setting(text: str) -> tuple[str, str, str]:
    match = _SETTING.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not processor:NAME=VALUE or storage:NAME=VALUE")
    return match[1], match[2], match[3]


def _start(options: argparse.Namespace) -> int:
    known = Stack.load(options.dir)
    if known is not None:
        alive = known.alive()
        if all(alive.values()):
            print(f"stack: runs already in {options.dir}")
            return 0
        down = ", ".join(part for part in PARTS if not alive[part])
        print(f"stack: {options.dir}/stack.json is stale ({down} ended): starting anew", file=sys.stderr)
        known.stop()
    settings: dict[str, dict[str, str]] = {service: {} for service in SERVICES}
    for service, name, value in options.env:
        settings[service][name] = value
    stack = Stack(options.dir, options.mongo, settings)
    stack.start()
    print(f"stack: ready. processor {stack.processor_url}, storage {stack.storage_url}")
    print(f"stack: addresses and tokens are in {short(stack.file)}, logs next to it")
    token = short(stack.folder / "secrets" / "operator-token")
    print(f"stack: console {stack.storage_url}/console, with the token in {token}")
    return 0


def _stop(folder: Path) -> int:
    known = Stack.load(folder)
    if known is None:
        print(f"stack: none runs in {short(folder)}")
        if (folder / folders.MARKER).exists():
            Stack(folder).stop()
        return 0
    known.stop()
    print("stack: stopped")
    return 0


def _status(folder: Path) -> int:
    known = Stack.load(folder)
    if known is None:
        print(f"stack: none runs in {short(folder)}")
        return 1
    alive = known.alive()
    up = dict(alive)
    addresses = {
        "mongod": known.mongodb_url,
        "anvil": known.rpc_url,
        "storage": known.storage_url,
        "processor": known.processor_url,
    }
    for part in PARTS:
        running = known.process(part)
        state = "runs" if alive[part] else "down"
        if part in SERVICES and alive[part]:
            up[part] = answers(f"{addresses[part]}/readyz")
            state = "ready" if up[part] else "not ready"
        print(f"{part:10} {state:10} {running.pid if running else '-':>8}  {_without_password(addresses[part])}")
    return 0 if all(up.values()) else 1


def _env(folder: Path) -> int:
    known = Stack.load(folder)
    if known is None:
        print(f"stack: none runs in {short(folder)}", file=sys.stderr)
        return 1
    for name, value in {
        "LUCID_PROCESSOR_URL": known.processor_url,
        "LUCID_STORAGE_URL": known.storage_url,
        "LUCID_RPC_URL": known.rpc_url,
        "LUCID_TOKEN_FILE": str(Secrets(known.folder / "secrets").operator_token.resolve()),
    }.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)


def short(path: Path) -> str:
    """A path as a reader would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
