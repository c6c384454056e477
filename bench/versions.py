"""A checkout of another version, to be compared with the present one."""

import subprocess
from pathlib import Path
from typing import Final

from scripts.devstack.process import ROOT

_SERVICES: Final = ("sessions/storage/main.py", "sessions/processor/main.py")


class VersionError(Exception):
    """The version to compare with cannot be had. `str()` says why."""


def checkout(version: str, target: Path, repository: Path = ROOT) -> Path:
    """Return the folder of a version: `version` itself if it is a folder, else that commit's services in `target`.

    `repository` is where the commit is looked for.

    Raises:
        VersionError: it is neither a folder with both services nor a commit.
    """
    folder = Path(version).absolute()
    if not folder.is_dir():
        folder = target
        _unpack(version, target, repository)
    if missing := [name for name in _SERVICES if not (folder / name).is_file()]:
        raise VersionError(f"{version} has no {missing[0]}")
    return folder


def _unpack(commit: str, target: Path, repository: Path) -> None:
    known = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if known.returncode:
        raise VersionError(f"{commit} is neither a folder nor a commit")
    target.mkdir()
    archive = target.with_suffix(".tar")
    commands = (
        ["git", "archive", f"--output={archive}", known.stdout.strip(), "sessions"],
        ["tar", "-x", "-f", str(archive), "-C", str(target)],
    )
    for command in commands:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        if done.returncode:
            raise VersionError(f"{commit} cannot be unpacked: {done.stderr.strip()[-300:]}")
    archive.unlink()
