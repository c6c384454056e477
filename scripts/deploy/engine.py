"""Docker and compose, asked for what runs."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE_FILE: Final = "docker-compose.pi.yml"
_TIMEOUT_SECONDS: Final = 60
_SHOWN_CHARACTERS: Final = 600


class EngineError(Exception):
    """Docker cannot be asked: why, and what to do."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the deployment. `health` is empty where the image has no health check."""

    service: str
    name: str
    state: str
    health: str
    exit_code: int
    error: str
    probe: str

    @property
    def good(self) -> bool:
        """Whether it does what it is there for: runs, healthy if it can tell, or has ended well."""
        if self.state == "exited":
            return self.exit_code == 0 and self.service.endswith("-setup")
        return self.state == "running" and self.health in ("", "healthy")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS, env=os.environ
        )
    except FileNotFoundError:
        raise EngineError("docker is not installed: see docs/operations.md, First start") from None
    except subprocess.TimeoutExpired:
        raise EngineError(f"docker did not answer within {_TIMEOUT_SECONDS} seconds: systemctl status docker") from None
    if done.returncode:
        said = done.stderr.strip()
        if "permission denied" in said:
            raise EngineError("docker refuses this user: run this with sudo, or add the user to the group docker")
        if "Cannot connect to the Docker daemon" in said:
            raise EngineError("docker does not run: systemctl start docker")
        raise EngineError(f"{' '.join(command[:3])}: {said[-_SHOWN_CHARACTERS:]}")
    return done.stdout


def compose(*arguments: str) -> str:
    """What compose answers for our file.

    Raises:
        EngineError: it cannot.
    """
    return _run(["docker", "compose", "-f", COMPOSE_FILE, *arguments])


def configuration() -> dict[str, Any]:
    """The compose file with its settings filled in.

    Raises:
        EngineError: it cannot be read.
    """
    found: dict[str, Any] = json.loads(compose("config", "--format", "json"))
    return found


def containers(project: str) -> list[Container]:
    """What there is of a project, running or not.

    Raises:
        EngineError: docker cannot be asked.
    """
    names = _run(["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={project}"]).split()
    if not names:
        return []
    return [_container(one) for one in json.loads(_run(["docker", "inspect", *names]))]


def _container(found: dict[str, Any]) -> Container:
    state = found["State"]
    health = state.get("Health") or {}
    probes = health.get("Log") or []
    return Container(
        service=found["Config"]["Labels"]["com.docker.compose.service"],
        name=found["Name"].lstrip("/"),
        state=state["Status"],
        health=health.get("Status", ""),
        exit_code=state["ExitCode"],
        error=state.get("Error", ""),
        probe=probes[-1]["Output"].strip() if probes else "",
    )


def last_words(container: str, lines: int = 3) -> list[str]:
    """The end of a container's log.

    Raises:
        EngineError: docker cannot be asked.
    """
    command = ["docker", "logs", "--tail", str(lines), container]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
    return [line[:_SHOWN_CHARACTERS] for line in (done.stdout + done.stderr).splitlines() if line.strip()][-lines:]


def networks() -> list[dict[str, Any]]:
    """All networks of the engine.

    Raises:
        EngineError: docker cannot be asked.
    """
    names = _run(["docker", "network", "ls", "-q"]).split()
    found: list[dict[str, Any]] = json.loads(_run(["docker", "network", "inspect", *names])) if names else []
    return found
