"""What a user would take instead: restic and BorgBackup, with encryption and zstd, from the same files."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, Protocol

from bench.corpus import Corpus

_PASSWORD: Final = "benchmark"  # noqa: S105 - of a repository that lives for a second


class ToolError(RuntimeError):
    """A tool failed: what it said."""


def _run(command: list[str], environment: dict[str, str], folder: Path | None = None) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - began


class Tool(Protocol):
    """One tool, with an empty repository for each run."""

    name: str

    def backup(self, corpus: Corpus, work: Path) -> float:
        """Back the corpus up into a new repository below `work`; seconds."""

    def restore(self, work: Path, target: Path) -> float:
        """Restore it all; seconds."""


class Restic:
    """restic: AES-256-CTR with Poly1305, zstd at its default level."""

    name = "restic"

    def _environment(self, work: Path) -> dict[str, str]:
        cache = str(work / "restic-cache")
        return {"RESTIC_REPOSITORY": str(work / "restic"), "RESTIC_PASSWORD": _PASSWORD, "RESTIC_CACHE_DIR": cache}

    def backup(self, corpus: Corpus, work: Path) -> float:
        """See `Tool`."""
        shutil.rmtree(work / "restic", ignore_errors=True)
        environment = self._environment(work)
        _run(["restic", "init", "--repository-version", "2", "--quiet"], environment)
        return _run(["restic", "backup", "--quiet", "--compression", "auto", str(corpus.folder)], environment)

    def restore(self, work: Path, target: Path) -> float:
        """See `Tool`."""
        return _run(["restic", "restore", "latest", "--quiet", "--target", str(target)], self._environment(work))


class Borg:
    """BorgBackup: AES-256-CTR with HMAC-SHA-256, zstd level 3."""

    name = "borg"

    def _environment(self, work: Path) -> dict[str, str]:
        return {
            "BORG_REPO": str(work / "borg"),
            "BORG_PASSPHRASE": _PASSWORD,
            "BORG_BASE_DIR": str(work / "borg-base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def backup(self, corpus: Corpus, work: Path) -> float:
        """See `Tool`."""
        shutil.rmtree(work / "borg", ignore_errors=True)
        environment = self._environment(work)
        _run(["borg", "init", "--encryption", "repokey"], environment)
        return _run(["borg", "create", "--compression", "zstd,3", "::all", str(corpus.folder)], environment)

    def restore(self, work: Path, target: Path) -> float:
        """See `Tool`."""
        target.mkdir(parents=True, exist_ok=True)
        return _run(["borg", "extract", "::all"], self._environment(work), target)


def installed() -> tuple[list[Tool], list[str]]:
    """The tools that are here, and a line for each that is not."""
    tools: list[Tool] = [Restic(), Borg()]
    missing = [tool for tool in tools if shutil.which(tool.name) is None]
    here = [tool for tool in tools if tool not in missing]
    return here, [f"{tool.name} is not installed, and was left out" for tool in missing]


def version(name: str) -> str:
    """The first line of what a program says of its version."""
    option = "version" if name == "restic" else "--version"
    return subprocess.run([name, option], capture_output=True, text=True, check=False).stdout.split("\n")[0]
