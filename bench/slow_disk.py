"""A disk that takes longer to confirm what it has, as an SD card does: each fsync of MongoDB is held up by so much."""

import shutil
import subprocess
from pathlib import Path
from string import Template
from typing import Final

_SOURCE: Final = Template(
    """#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

static int late(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    usleep($microseconds);
    return result;
}

int fsync(int fd) { return late("fsync", fd); }
int fdatasync(int fd) { return late("fdatasync", fd); }
"""
)


class SlowDiskError(RuntimeError):
    """It cannot be had here: why not."""


def library(folder: Path, milliseconds: float) -> Path:
    """A shared library for LD_PRELOAD, which does it.

    Raises:
        SlowDiskError: there is no C compiler, or it fails.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise SlowDiskError("--fsync-ms needs a C compiler, cc: apt-get install gcc libc6-dev")
    made = folder / "slow_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(made), "-ldl"]
    source = _SOURCE.substitute(microseconds=round(milliseconds * 1000))
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlowDiskError(f"the C compiler fails: {done.stderr.strip()[-500:]}")
    return made
