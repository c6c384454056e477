"""What the container tests share: images, and a deployment that runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.deployment import Deployment, export_checkout, run
from tests.containers.standins import build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs the engine, and takes longer than other tests."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of what is in git, as an operator has it."""
    return export_checkout(tmp_path_factory.mktemp("operator") / "lucid-sessions")


@pytest.fixture(scope="session")
def own_images(checkout: Path) -> None:
    """Both images for both architectures, by the script that an operator runs."""
    said = run(checkout / "scripts" / "build-images", "--platform", "linux/arm64,linux/amd64", cwd=checkout)
    assert "lucid-session-storage:" in said


@pytest.fixture(scope="session")
def foreign_images() -> dict[str, str]:
    """Images of MongoDB and of the development chain."""
    return build.images()


@pytest.fixture(scope="module")
def deployment(
    checkout: Path, own_images: None, foreign_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment with its secrets, not started."""
    folder = tmp_path_factory.mktemp("deployment") / "lucid-sessions"
    shutil.copytree(checkout, folder)
    one = Deployment(folder, foreign_images)
    one.init()
    try:
        yield one
    finally:
        one.down(volumes=True)
