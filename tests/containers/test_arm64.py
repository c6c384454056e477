"""The Pi's architecture, emulated: the same compose file, the whole job."""

import json
import random
from pathlib import Path

import pytest

from tests.containers.deployment import OURS, Deployment, overridden, run


@pytest.mark.timeout(1500)
def test_the_whole_job_on_arm64(deployment: Deployment, tmp_path: Path) -> None:
    deployment.environment["DOCKER_DEFAULT_PLATFORM"] = "linux/arm64"
    # Emulated, everything takes many times as long; a probe each second would keep a core busy with nothing else.
    deployment.set(STORAGE_TIMEOUT_SECONDS="120")
    patient = {"healthcheck": {"start_period": "900s", "start_interval": "20s", "interval": "60s", "timeout": "60s"}}
    with overridden(deployment.folder, {"services": dict.fromkeys(OURS, patient)}):
        deployment.up(wait_seconds=1000)
    for service, port in OURS.items():
        assert json.loads(run("curl", "-fsS", f"localhost:{port}/health"))["status"] == "ok"
        program = "import json, platform; print(json.dumps(platform.machine()))"
        assert deployment.python(service, program) == "aarch64"
    source = tmp_path / "recording"
    source.write_bytes(random.Random(3).randbytes(300_000) + b"the same line\n" * 20_000)
    deployment.main_job(source, tmp_path, "on-arm64")
