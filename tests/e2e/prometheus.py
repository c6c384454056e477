"""A real Prometheus that scrapes a stack, with the deployed configuration and rules at a quicker pace."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts.devstack import process
from scripts.devstack.process import ROOT, Process, StartError

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
CONFIGURATION = ROOT / "deploy" / "prometheus" / "prometheus.yml"
_PACE = "500ms"
_ATTEMPTS = 3


@dataclass
class Prometheus:
    """In `folder`; `targets` are the addresses of the jobs in the deployed configuration."""

    folder: Path
    targets: Mapping[str, str]
    marks: Mapping[str, str]
    port: int = 0
    running: Process | None = field(default=None)

    def start(self) -> None:
        """Start it, and wait until it has scraped each target.

        Raises:
            StartError: it does not come up.
        """
        self._write()
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = process.free_port()
            log = self.folder / f"prometheus-{attempt}.log"
            command: list[str | Path] = ["prometheus", "--config.file", self.folder / "prometheus.yml"]
            command += ["--storage.tsdb.path", self.folder / "data", "--log.level", "warn"]
            command += ["--web.listen-address", f"127.0.0.1:{self.port}"]
            self.running = process.start(command, log, {**os.environ, **self.marks})
            try:
                process.wait_ready("prometheus", self.running, log, self._ready, process.START_SECONDS)
            except StartError:
                self.stop()
                if attempt == _ATTEMPTS or not process.port_was_taken(log):
                    raise
            else:
                return

    def _write(self) -> None:
        rules = yaml.safe_load(RULES.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = "1s"
        (self.folder / "alerts.yml").write_text(yaml.safe_dump(rules))
        configuration = yaml.safe_load(CONFIGURATION.read_text())
        configuration["global"] = dict.fromkeys(configuration["global"], _PACE)
        for job in configuration["scrape_configs"]:
            job["static_configs"] = [{"targets": [self.targets[job["job_name"]]]}]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def _ready(self) -> bool:
        try:
            return len(self.query("up == 1")) == len(self.targets)
        except (OSError, RuntimeError):
            return False

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API.

        Raises:
            RuntimeError: it refuses, as a query that it cannot parse.
        """
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                raise RuntimeError(refused.read().decode(errors="replace")) from None
        assert found["status"] == "success"
        return found["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        return list(self.get("query", query=expression)["result"])

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {one["labels"]["alertname"] for one in self.get("alerts")["alerts"] if one["state"] == "firing"}

    def fires(self, alert: str, seconds: float = 60) -> bool:
        """Whether an alert fires, now or soon."""
        return process.wait_until(lambda: alert in self.firing(), seconds)

    def ends(self, alert: str, seconds: float = 60) -> bool:
        """Whether an alert has ended, or ends soon."""
        return process.wait_until(lambda: alert not in self.firing(), seconds)

    def holds(self, condition: str, seconds: float = 60) -> bool:
        """Whether a condition is true of some series, now or soon."""
        return process.wait_until(lambda: bool(self.query(condition)), seconds)
