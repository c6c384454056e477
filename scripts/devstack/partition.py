"""A port of this machine that nobody reaches any more: what goes to it or comes from it is dropped, without a word."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_IPTABLES: Final = ("iptables", "--wait", "10")


def problem() -> str:
    """Why ports cannot be cut off here; empty when they can."""
    if shutil.which("iptables") is None:
        return "iptables not found (apt-get install iptables)"
    if os.geteuid() != 0:
        return "only root can drop packets"
    asked = subprocess.run([*_IPTABLES, "--list-rules", "INPUT"], capture_output=True, text=True, check=False)
    return "" if asked.returncode == 0 else f"iptables says: {asked.stderr.strip()[:200]}"


@contextmanager
def cut_off(port: int) -> Iterator[None]:
    """Drop all packets to and from a TCP port on the loopback, of connections that are open, too."""
    rules = [
        ["INPUT", "--in-interface", "lo", "--protocol", "tcp", side, str(port), "--jump", "DROP"]
        for side in ("--dport", "--sport")
    ]
    for rule in rules:
        subprocess.run([*_IPTABLES, "--insert", *rule], check=True)
    try:
        yield
    finally:
        for rule in rules:
            subprocess.run([*_IPTABLES, "--delete", *rule], check=True)
