"""`scripts/test`: chooses the groups that can run here, runs pytest with coverage, says what was left out."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from scripts.devstack import clock, leaks, mongod, partition, process, read_only
from scripts.devstack.process import ROOT, StartError

_PACKAGES: Final = {
    "borg": "borgbackup",
    "Xvfb": "xvfb",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "ffmpeg": "ffmpeg",
    "ffprobe": "ffmpeg",
    "javac": "default-jdk-headless",
    "promtool": "prometheus",
}
_CONTAINER_PLATFORMS: Final = ("linux/amd64", "linux/arm64")
_COVERAGE: Final = [sys.executable, "-m", "coverage"]
_CORE_PERCENT: Final = 100
_WHOLE_PERCENT: Final = 90
_CLOSING_LINE = re.compile(r"(?:\x1b\[[\d;]*m)*=+.* in [\d.]+s.*=+(?:\x1b\[[\d;]*m)*$")
# Most tests wait for processes. In the order of collection, so that the longest group, the containers, begins at once.
_SIDE_BY_SIDE: Final = ["-n", str((os.cpu_count() or 1) + 1), "--no-loadscope-reorder", "--durations=60"]
_RUN_VARIABLE: Final = "LUCID_TEST_RUN"
_LEAKS_SHOWN: Final = 50
_KEPT_BYTES: Final = 64 * 1024
"""Of a run that failed, what is no log and larger than this is removed: it is some gigabytes of databases."""


def main(arguments: list[str]) -> int:
    """Run the tests.

    Returns:
        The exit status: 0 only when every test passed, coverage is enough, no process is left and no secret was told.
    """
    # Started in the background, a shell ignores SIGINT for us, and every child would inherit that; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    left_out, problem = choose_groups(GROUPS, in_ci=os.environ.get("CI", "") not in ("", "false", "0"))
    problem = problem or _mongod_problem()
    if problem:
        print(f"test: {problem}", file=sys.stderr)
        return 1
    for stale in ROOT.glob(".coverage*"):
        stale.unlink()
    os.environ[_RUN_VARIABLE] = run = uuid.uuid4().hex
    folder = Path(tempfile.mkdtemp(prefix="lucid-test-"))
    secrets = folder / "secrets" / "register"
    secrets.parent.mkdir(mode=0o700)
    os.environ[leaks.VARIABLE] = str(secrets)
    os.environ["COVERAGE_FILE"] = str(ROOT / ".coverage")
    side_by_side = [] if arguments else _SIDE_BY_SIDE
    # Tests keep their logs under this folder, to be searched for secrets at the end.
    kept = ["--basetemp", str(folder / "pytest"), "-o", "tmp_path_retention_policy=all"]
    chosen = [*_deselect(arguments, list(left_out)), *side_by_side, *_colour(), *kept]
    status, closing = _pytest(chosen, folder / "pytest.log")
    left = end_leftovers(run)
    for variable in (_RUN_VARIABLE, leaks.VARIABLE):
        os.environ.pop(variable)
    told = leaks.find(leaks.registered(secrets), leaks.logs(folder))
    # Thresholds are for the whole: a single test cannot cover everything.
    covered = _report_coverage(complete=not arguments)
    print()
    for group, reason in left_out.items():
        print(f"test: left out: the tests marked '{group}', because {reason}")
    if left:
        print(f"test: FAILED: {len(left)} processes were left running (now ended): {', '.join(left)}")
    if not covered:
        print("test: FAILED: coverage is below its threshold")
    for leak in told[:_LEAKS_SHOWN]:
        print(f"test: FAILED: a secret was told: {leak}")
    status = status or (1 if left or told or not covered else 0)
    if status:
        keep_logs(folder)
        print(f"test: logs of this run: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(closing)
    return status


def programs_problem(*programs: str) -> str:
    """Which of these programs are not here; empty when all are."""
    missing = [program for program in programs if shutil.which(program) is None]
    packages = " ".join(sorted({_PACKAGES.get(program, program) for program in missing}))
    return f"{', '.join(missing)} not found (apt-get install {packages})" if missing else ""


def containers_problem() -> str:
    """Why the images cannot be built and run here; empty when they can."""
    if problem := programs_problem("docker", "docker-registry", "npm"):
        return problem
    if os.geteuid() != 0:
        return "only root can give the secrets to the containers' users"
    for question in (["docker", "version"], ["docker", "compose", "version"], ["docker", "buildx", "inspect"]):
        asked = subprocess.run(question, capture_output=True, text=True, check=False)
        if asked.returncode:
            return f"{' '.join(question)} says: {(asked.stderr.strip().splitlines() or ['nothing'])[-1]}"
    if missing := [platform for platform in _CONTAINER_PLATFORMS if platform not in asked.stdout]:
        return f"{' and '.join(missing)} cannot be built or run (apt-get install qemu-user-static binfmt-support)"
    engine = subprocess.run(
        ["docker", "info", "--format", "{{.DriverStatus}}"], capture_output=True, text=True, check=False
    )
    if "io.containerd.snapshotter" not in engine.stdout and "docker-container" not in asked.stdout:
        return "the engine builds for one platform only (set features.containerd-snapshotter in daemon.json)"
    return ""


GROUPS: Final[Mapping[str, Callable[[], str]]] = {
    "chromium": partial(programs_problem, "chromium", "ffmpeg"),
    "clocks": clock.problem,
    "containers": containers_problem,
    "desktop": partial(programs_problem, "Xvfb", "ffmpeg", "ffprobe"),
    "java": partial(programs_problem, "javac"),
    "partition": partition.problem,
    "prometheus": partial(programs_problem, "prometheus", "promtool"),
    "replicas": partial(programs_problem, "haproxy"),
    "root": read_only.problem,
    "rivals": partial(programs_problem, "restic", "borg"),
}
"""Test groups, by marker, and what says why they cannot run here."""


def choose_groups(groups: Mapping[str, Callable[[], str]], *, in_ci: bool) -> tuple[dict[str, str], str]:
    """The groups to leave out, with the reason; and what is wrong, if nothing may be left out (`in_ci`)."""
    left_out = {group: reason for group, problem in groups.items() if (reason := problem())}
    if in_ci and left_out:
        group, reason = next(iter(left_out.items()))
        return {}, f"with CI=true no test is left out, and the group '{group}' cannot run: {reason}"
    return left_out, ""


def _mongod_problem() -> str:
    if os.environ.get("MONGODB_URL"):
        return ""
    try:
        shown = subprocess.run([mongod.find(), "--version"], capture_output=True, text=True, check=False)
    except StartError as error:
        return str(error)
    if shown.returncode:
        return str(mongod.with_package(StartError("mongod", shown.stderr.strip()[:200], shown.stderr)))
    return ""


def _deselect(arguments: list[str], groups: list[str]) -> list[str]:
    """Add `not GROUP` to whatever -m says already."""
    if not groups:
        return arguments
    chosen = " and ".join(f"not {group}" for group in groups)
    if "-m" in arguments[:-1]:
        at = arguments.index("-m") + 1
        return [*arguments[:at], f"({arguments[at]}) and {chosen}", *arguments[at + 1 :]]
    return ["-m", chosen, *arguments]


def _colour() -> list[str]:
    return ["--color=yes"] if sys.stdout.isatty() else []


def _pytest(arguments: list[str], log: Path) -> tuple[int, str]:
    """Run pytest under coverage, show its output as it comes, and keep it in `log`; gives its closing line, too."""
    closing = ""
    command = [*_COVERAGE, "run", "-m", "pytest", *arguments]
    with (
        log.open("w") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", cwd=ROOT) as run,
    ):
        assert run.stdout is not None
        try:
            for line in run.stdout:
                print(line, end="", flush=True)
                kept.write(line)
                if _CLOSING_LINE.match(line.rstrip("\n")):
                    closing = line.rstrip("\n")
        except KeyboardInterrupt:
            run.wait()
    return run.returncode, closing or f"test: pytest ended with status {run.returncode} and no closing line"


def end_leftovers(run: str) -> list[str]:
    """Kill every process that carries this run's mark in its environment, and give their names."""
    found = []
    for left in process.marked(_RUN_VARIABLE, run):
        found.append(f"{left.pid} ({left.command()})")
        left.send(signal.SIGKILL)
    return found


def keep_logs(folder: Path) -> None:
    """Remove what is large and no log, the databases above all: runs that fail shall not fill the disk."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # what was killed just now may still have been removing something
            if path.suffix != ".log" and path.is_file() and not path.is_symlink() and path.stat().st_size > _KEPT_BYTES:
                path.unlink()


def _report_coverage(*, complete: bool) -> bool:
    print("\ncoverage, with that of the main stack's processes:", flush=True)
    if not list(ROOT.glob(".coverage.*")):
        print("  nothing was measured")
        return not complete
    subprocess.run([*_COVERAGE, "combine", "--quiet"], check=True, cwd=ROOT)
    if not complete:
        subprocess.run([*_COVERAGE, "report", "--format=total"], check=False, cwd=ROOT)
        return True
    core = [*_COVERAGE, "report", "--include=sessions/core/*", f"--fail-under={_CORE_PERCENT}"]
    whole = [*_COVERAGE, "report", f"--fail-under={_WHOLE_PERCENT}"]
    statuses = [subprocess.run(command, check=False, cwd=ROOT).returncode for command in (core, whole)]
    return not any(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
