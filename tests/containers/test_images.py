"""The two images: for both architectures, small, reproducible, with nothing in them that need not be there."""

import json
import re
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.devstack.process import ROOT, free_port
from sessions import __version__
from tests.conftest import Figure
from tests.containers.deployment import docker, elf_machines, run

pytestmark = pytest.mark.usefixtures("own_images")

IMAGES = {
    "processor": f"pickme/lucid-chunk-processor:{__version__}",
    "storage": f"pickme/lucid-session-storage:{__version__}",
}
LIMIT_BYTES = {"processor": 110_000_000, "storage": 165_000_000}
MACHINES = {"amd64": 62, "arm64": 183}
"""e_machine of ELF (System V ABI): x86-64 and AArch64."""
ENVIRONMENT = {
    "processor": {"SERVICE_NAME": "chunk-processor", "PORT": "8085"},
    "storage": {"SERVICE_NAME": "session-storage", "PORT": "8086"},
}
BOTH = {"HOST": "0.0.0.0", "LOG_LEVEL": "INFO", "DEBUG": "false", "PYTHONPATH": "/app", "PYTHONUNBUFFERED": "1"}


def content_of(image: str, platform: str) -> list[tuple[str, int, bytes]]:
    """Name, size and first bytes of all files of an image."""
    container = docker("create", "--platform", platform, image).strip().splitlines()[-1]
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as tar:
                found = []
                for member in tar:
                    file = tar.extractfile(member) if member.isfile() else None
                    found.append((member.name, member.size, file.read(20) if file else b""))
                return found
    finally:
        docker("rm", container)


@pytest.fixture(scope="module", params=["processor", "storage"])
def service(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def architecture(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def content(service: str, architecture: str) -> list[tuple[str, int, bytes]]:
    return content_of(IMAGES[service], f"linux/{architecture}")


def test_all_machine_code_is_for_the_architecture(content: Any, architecture: str) -> None:
    machines = elf_machines([(name, head) for name, _, head in content])
    assert len(machines) > 50
    assert any(name.startswith("usr/bin/python3") for name in machines)
    assert {name: machine for name, machine in machines.items() if machine != MACHINES[architecture]} == {}


def test_the_image_is_small(content: Any, service: str, architecture: str, figure: Figure) -> None:
    total = sum(size for _, size, _ in content)
    figure(f"image size, uncompressed: {service} {architecture}: {total / 1e6:.1f} MB")
    if architecture == "amd64":
        assert total <= LIMIT_BYTES[service]


def test_nothing_is_there_that_need_not_be(content: Any, service: str) -> None:
    names = [name for name, _, _ in content]
    programs = {"sh", "bash", "dash", "ash", "busybox", "pip", "pip3", "apt", "apt-get", "dpkg", "gcc", "perl"}
    found = [name for name in names if name.split("/")[-1] in programs and "bin/" in name]
    assert found == []
    packages = [name for name in names if "dist-packages/" in name]
    assert packages
    assert [name for name in packages if re.search(r"dist-packages/(pip|setuptools|wheel)[-/]", name)] == []
    assert [name for name in packages if re.search(r"/tests?/", name)] == []
    # Storage has the bytecode of its packages on purpose; nobody has any of another origin.
    compiled = {name.partition("dist-packages/")[0] for name in names if name.endswith(".pyc")}
    assert compiled == ({"usr/local/lib/python3.11/"} if service == "storage" else set())
    ours = sorted({"/".join(name.split("/")[2:3]) for name in names if name.startswith("app/sessions/")} - {""})
    assert ours == sorted(["__init__.py", "core", "runtime", service])
    console = "app/sessions/storage/console/static/"
    pages = {Path(name).suffix for name in names if name.startswith(console)} - {""}
    assert pages == ({".html", ".css", ".js", ".svg"} if service == "storage" else set())
    assert {Path(name).suffix for name in names if name.startswith("app/") and not name.startswith(console)} == (
        {"", ".py", ".json"} if service == "storage" else {"", ".py"}
    )
    assert [
        name for name in names if name.startswith("app/") and ("__pycache__" in name or name.endswith(".pyc"))
    ] == []


def test_the_image_says_what_it_is(service: str) -> None:
    config = json.loads(docker("image", "inspect", IMAGES[service]))[0]["Config"]
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert environment | ENVIRONMENT[service] | BOTH == environment
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("65532:65532", "/app", "SIGTERM")
    assert list(config["ExposedPorts"]) == [f"{ENVIRONMENT[service]['PORT']}/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/python3", "-I", "-S", "/app/sessions/runtime/probe.py"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.title"].startswith("Lucid ")
    assert {"org.opencontainers.image.revision", "org.opencontainers.image.description"} <= labels.keys()


@pytest.mark.parametrize(("service", "other"), [("processor", "storage"), ("storage", "processor")])
def test_an_image_cannot_import_the_other_service(service: str, other: str) -> None:
    program = "import importlib, sys; importlib.import_module(sys.argv[1])"
    command = [
        "run",
        "--rm",
        "--network",
        "none",
        "--platform",
        "linux/amd64",
        "--entrypoint",
        "/usr/bin/python3",
        IMAGES[service],
        "-c",
        program,
    ]
    docker(*command, f"sessions.{service}.main")
    said = docker(*command, f"sessions.{other}", expect=1)
    assert f"No module named 'sessions.{other}'" in said
    if service == "storage":
        assert "No module named 'cryptography'" in docker(*command, "cryptography", expect=1)


def test_a_missing_setting_is_one_line(service: str) -> None:
    said = docker("run", "--rm", "--network", "none", "--platform", "linux/amd64", IMAGES[service], expect=78)
    assert re.fullmatch(r"configuration error: [A-Z_]+: .+\n", said)


def layers(archive: Path) -> list[str]:
    """Digests of the layers of an OCI archive."""
    with tarfile.open(archive) as tar:

        def document(name: str) -> Any:
            file = tar.extractfile(name)
            assert file is not None
            return json.load(file)

        manifest = document("index.json")["manifests"][0]["digest"]
        found = document(f"blobs/{manifest.replace(':', '/')}")
        return [layer["digest"] for layer in found["layers"]]


def test_the_same_commit_gives_the_same_layers(service: str, checkout: Path, tmp_path: Path) -> None:
    """Once with what the builder still has of an earlier build, once from nothing, each as of another commit's time."""
    archives = {tmp_path / "first.tar": ("1700000000",), tmp_path / "second.tar": ("1700000001", "--no-cache")}
    for archive, (epoch, *options) in archives.items():
        context = tmp_path / archive.stem
        shutil.copytree(checkout / "sessions", context)
        for path in context.rglob("*"):  # another clone, at another time, by another user
            path.touch()
        command = ["buildx", "build", *options, "--provenance=false", "--platform", "linux/amd64"]
        command += ["--build-arg", f"SOURCE_DATE_EPOCH={epoch}", "--output", f"type=oci,dest={archive}"]
        docker(*command, "-f", str(context / f"Dockerfile.{service}"), str(context))
        time.sleep(1.1)
    first, second = map(layers, archives)
    assert first == second


def test_the_wheels_of_a_newer_python_are_locked_as_well(checkout: Path) -> None:
    for service in ("processor", "storage"):
        command = ["buildx", "build", "--platform", "linux/arm64", "--target", "build", "--output", "type=cacheonly"]
        command += ["--build-arg", "PYTHON_VERSION=3.13"]
        docker(*command, "-f", str(checkout / f"sessions/Dockerfile.{service}"), str(checkout / "sessions"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of images on the loopback."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{inmemory: {{}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


COMMANDS = {
    "processor": "docker buildx build --platform linux/arm64,linux/amd64 -t pickme/lucid-chunk-processor:latest-arm64 "
    "-t pickme/lucid-chunk-processor:latest-$(date +%Y%m%d-%H%M%S) -f sessions/Dockerfile.processor --push sessions/",
    "storage": "docker buildx build --platform linux/arm64,linux/amd64 -t pickme/lucid-session-storage:latest-arm64 "
    "-t pickme/lucid-session-storage:latest-$(date +%Y%m%d-%H%M%S) -f sessions/Dockerfile.storage --push sessions/",
}
"""As they are in use."""


def test_the_commands_in_use_push_both_platforms_to_a_registry(service: str, checkout: Path, registry: str) -> None:
    run("bash", "-c", COMMANDS[service].replace("pickme/", f"{registry}/pickme/"), cwd=checkout)
    name = f"{registry}/{IMAGES[service].partition(':')[0]}:latest-arm64"
    index = json.loads(docker("buildx", "imagetools", "inspect", "--raw", name))
    platforms = {
        f"{one['platform']['os']}/{one['platform']['architecture']}"
        for one in index["manifests"]
        if one["platform"]["os"] != "unknown"
    }
    assert platforms == {"linux/arm64", "linux/amd64"}
    docker("image", "rm", name)
    docker("pull", "--platform", "linux/arm64", name)
    machines = elf_machines([(path, head) for path, _, head in content_of(name, "linux/arm64")])
    assert set(machines.values()) == {MACHINES["arm64"]}
    docker("image", "rm", name)


def test_the_dockerfiles_are_found_where_the_commands_look() -> None:
    assert {f"sessions/Dockerfile.{service}" for service in COMMANDS} <= {
        str(path.relative_to(ROOT)) for path in (ROOT / "sessions").glob("Dockerfile.*")
    }
