"""The command line of `scripts/bench`."""

import argparse
import json
import math
from pathlib import Path
from typing import Any, Final

from bench import corpus
from bench.results import Results

PARTS: Final = ("recording", "latency", "sealing", "anchoring")


def options_of(arguments: list[str]) -> argparse.Namespace:
    """Return what the command line asks for, or end the program with what is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="How fast it is, beside other ways.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each figure is measured (default 5)")
    parser.add_argument("--mib", type=int, default=192, help="size of the corpus that is made (default 192)")
    parser.add_argument("--seed", type=int, default=corpus.SEED, help="what it is made of")
    parser.add_argument("--corpus", type=_own_corpus, metavar="DIR", help="your own files; nothing is written there")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone; may come again")
    parser.add_argument(
        "--against",
        metavar="COMMIT|FOLDER",
        help="with --only recording, --only latency: measure another version in turns with this",
    )
    parser.add_argument("--profile", action="store_true", help="show where the services' time goes")
    parser.add_argument("--quick", action="store_true", help="one round of little, to see that it runs")
    parser.add_argument(
        "--fsync-ms", type=_positive, metavar="N", help="a slower disk: each fsync of MongoDB takes N ms longer"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the plots there")
    parser.add_argument(
        "--markdown", type=_measured, metavar="FILE", help="print what a FILE of --json holds, for documents"
    )
    parser.add_argument(
        "--model", type=_measured, metavar="FILE", help="print what a fleet would need, by a FILE of --json"
    )
    for name, default, what in (
        ("sessions-a-day", 1e6, "sessions a day"),
        ("session-minutes", 10, "length of a session"),
        ("chunk-kib", 64, "size of a chunk"),
        ("chunk-seconds", 1, "time between two chunks of a session"),
        ("peak", 3, "the busiest time, in means of a day"),
        ("keep-days", 90, "how long recordings are kept"),
        ("members", 3, "members of a replica set of MongoDB"),
        ("interval-seconds", 60, "time between two anchors"),
    ):
        parser.add_argument(
            f"--{name}", type=_positive, default=default, help=f"--model: {what} (default {default:,g})"
        )
    parser.add_argument("--keep", action="store_true", help="keep data and logs, and say where")
    options = parser.parse_args(arguments)
    compared = {"recording", "latency"}
    if options.against and (not options.only or not compared.issuperset(options.only)):
        parser.error("--against goes with --only recording, --only latency, or both")
    if options.against and (options.profile or options.plots):
        parser.error("--against goes neither with --profile nor with --plots")
    return options


def command(arguments: list[str]) -> str:
    """Return the command that measures this again, without the places that it wrote to."""
    kept = [f"{one} " for one in arguments]
    for name in ("--json", "--plots", "--corpus"):
        kept = [one for one in kept if not one.startswith(f"{name}=")]
        while f"{name} " in kept:
            at = kept.index(f"{name} ")
            del kept[at : at + 2]
    return "scripts/bench " + "".join(kept)


def _own_corpus(folder: str) -> corpus.Corpus:
    try:
        return corpus.of_folder(Path(folder))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _measured(path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text())
        Results.of_document(found["figures"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"{path} is not what --json writes: {error}") from error
    return found


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
