"""Images of MongoDB and of an EVM node: the real ones where they are or can be had, else stand-ins built here."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from scripts.devstack.process import ROOT
from tests.containers.deployment import docker, run

PLATFORMS: Final = ("linux/amd64", "linux/arm64")
_HERE: Final = Path(__file__).parent
_ANVIL_VERSION: Final = "1.7.1"
_APT_SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
_REAL: Final = {"MONGODB_IMAGE": "mongo:7.0", "CHAIN_IMAGE": f"ghcr.io/foundry-rs/foundry:v{_ANVIL_VERSION}"}


def images() -> dict[str, str]:
    """Their names, as settings of the compose file."""
    if all(_can_be_had(image) for image in _REAL.values()):
        return dict(_REAL)
    work = ROOT / ".containers"
    names = {"MONGODB_IMAGE": "lucid-standin/mongo:7.0", "CHAIN_IMAGE": f"lucid-standin/anvil:{_ANVIL_VERSION}"}
    _build(names["MONGODB_IMAGE"], "mongodb", _mongodb_context(work / "mongodb"))
    _build(names["CHAIN_IMAGE"], "chain", _chain_context(work / "chain"))
    return names


def _can_be_had(image: str) -> bool:
    for platform in PLATFORMS:
        command = ["docker", "pull", "--quiet", "--platform", platform, image]
        if subprocess.run(command, capture_output=True, check=False, timeout=600).returncode:
            return False
    return True


def _build(name: str, what: str, context: Path) -> None:
    docker(
        "buildx", "build", "--platform", ",".join(PLATFORMS), "-t", name, "-f", _HERE / f"{what}.Dockerfile", context
    )


def _mongodb_context(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "apt").mkdir(parents=True)
    if _APT_SOURCES.exists():
        shutil.copy(_APT_SOURCES, folder / "apt")
    shutil.copy(_HERE / "mongodb_entrypoint.py", folder)
    return folder


def _chain_context(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for architecture in ("amd64", "arm64"):
        if not (folder / f"anvil-{architecture}").exists():
            package = f"@foundry-rs/anvil-linux-{architecture}@{_ANVIL_VERSION}"
            packed = run("npm", "pack", "--silent", package, cwd=folder).split()[-1]
            run("tar", "-xzf", packed, cwd=folder)
            (folder / "package" / "bin" / "anvil").rename(folder / f"anvil-{architecture}")
            shutil.rmtree(folder / "package")
            (folder / packed).unlink()
    return folder
