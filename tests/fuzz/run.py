"""`scripts/fuzz`: tries the parsers for as long as one likes, and says how fast and with which seed."""

import argparse
import secrets
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.parsers import PARSERS, Parser
from tests.fuzz.trial import examples, shown, try_one

_ROUND_EXAMPLES = 1000


def main(arguments: list[str] | None = None) -> int:
    """Try them, in turns.

    Returns:
        The exit status: 0, or 1 when there is a finding.
    """
    options = _parser().parse_args(arguments)
    chosen = [PARSERS[name] for name in options.parsers or PARSERS]
    options.output.mkdir(parents=True, exist_ok=True)
    if options.replay is not None:
        return _replay(chosen, options.replay)
    number = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"fuzz: seed {number}, {options.minutes:g} minutes, {len(chosen)} parsers", flush=True)
    end = time.monotonic() + 60 * options.minutes
    status = 0
    for place, parser in enumerate(chosen):
        until = time.monotonic() + max(0.0, end - time.monotonic()) / (len(chosen) - place)
        status |= _one(parser, number, until, options.output)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Tries the parsers of foreign bytes.")
    parser.add_argument("parsers", nargs="*", choices=[[], *PARSERS], metavar="PARSER", help=", ".join(PARSERS))
    parser.add_argument("--minutes", type=float, default=10, help="for all parsers together (default: 10)")
    parser.add_argument("--seed", type=int, help="the one that an earlier run printed: the same inputs again")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try only the input in this file")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(tempfile.gettempdir()) / "lucid-fuzz",
        help="folder for inputs that are findings (default: lucid-fuzz in the temporary folder)",
    )
    return parser


def _one(parser: Parser, number: int, until: float, output: Path) -> int:
    began, tried, parsed, rounds = time.monotonic(), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        while rounds == 0 or time.monotonic() < until:
            try:
                counts = examples(
                    parser, Path(folder), _ROUND_EXAMPLES, number + rounds, until=until if rounds else None
                )
            except Exception:  # noqa: BLE001 - whatever it is, it is a finding
                traceback.print_exc()
                data = (Path(folder) / f"{parser.name}.input").read_bytes()
                kept = output / f"{parser.name}-{number + rounds}.input"
                kept.write_bytes(data)
                print(f"\nfuzz: {parser.name}: FOUND, with the seed {number + rounds}: {shown(data)}")
                print(f"fuzz: again: scripts/fuzz --replay {kept} {parser.name}", flush=True)
                return 1
            tried, parsed, rounds = tried + counts.tried, parsed + counts.parsed, rounds + 1
    seconds = time.monotonic() - began
    print(f"{parser.name:18} {tried:9} inputs {tried / seconds:8.0f} /s {parsed:8} of them parse", flush=True)
    return 0


def _replay(chosen: list[Parser], path: Path) -> int:
    data, status = path.read_bytes(), 0
    for parser in chosen:
        try:
            with tempfile.TemporaryDirectory() as folder:
                said = "parses" if try_one(parser, data, Path(folder)) else "is refused, as documented"
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            traceback.print_exc()
            said, status = "is a FINDING", 1
        print(f"{parser.name:18} {said}")
    return status


if __name__ == "__main__":
    sys.exit(main())
