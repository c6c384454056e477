"""What processes cost, CPU time and memory, and what the machine was kept from giving; from /proc, see proc(5)."""

import time
from collections.abc import Mapping
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has had so far, in user mode and in the kernel.

    The clock is the one of clock_getcpuclockid(3), in nanoseconds; /proc counts in hundredths of a second.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime((~pid << 3) | 2)


def _status_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return _status_mib(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """The most that was resident since `forget_peak`, in MiB."""
    return _status_mib(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak begin at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class Stolen:
    """Of the CPU time that the machine's processes ask for, what its hypervisor gives to other machines; from now on.

    It is waited for mostly when a processor that was idle is to go on: what wakes up often is late then, and what
    computes all the time hardly loses any.
    """

    def __init__(self) -> None:
        self._began = _machine_ticks()

    def percent(self) -> float:
        """The share since then, of all processors together; 0 on a machine that is its own."""
        used, stolen = (now - then for now, then in zip(_machine_ticks(), self._began, strict=True))
        return 100 * stolen / (used + stolen) if stolen else 0.0


def _machine_ticks() -> tuple[int, int]:
    """CPU time so far, used and stolen."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, line.split()[1:9])
    return user + nice + system + interrupts + soft_interrupts, stolen


class Meter:
    """CPU time and peak memory of some processes, from now on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._began = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        for pid in self._pids.values():
            forget_peak(pid)

    def cpu(self) -> dict[str, float]:
        """CPU seconds of each since then."""
        return {name: cpu_seconds(pid) - self._began[name] for name, pid in self._pids.items()}

    def peaks(self) -> dict[str, float]:
        """The most that each had resident since then, in MiB."""
        return {name: peak_mib(pid) for name, pid in self._pids.items()}
