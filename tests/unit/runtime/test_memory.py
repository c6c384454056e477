"""How a process is told to use memory, in processes of their own."""

import subprocess
import sys

import pytest

_SETTLED = """
import ctypes, gc, sys
from sessions.runtime import memory
if "without" in sys.argv:
    class Library:
        def __init__(self, _): pass
    ctypes.CDLL = Library
memory.settle()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
assert gc.get_threshold()[0] == 20_000
"""
_FAULTS = """
import resource, sys
from sessions.runtime import memory
if "settled" in sys.argv:
    memory.settle()
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        bodies = [bytearray(b"x") * (64 * 1024) for _ in range(64)]
        del bodies
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touched()
print(touched())
"""


def _run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [(), ("without",)])
def test_what_is_loaded_is_not_looked_through_again(arguments: tuple[str, ...]) -> None:
    _run(_SETTLED, *arguments)


def test_memory_of_one_body_serves_the_next() -> None:
    """Each page that is given back and taken again is a fault: a thousand for each round of 4 MiB."""
    assert int(_run(_FAULTS, "settled")) < 1000
