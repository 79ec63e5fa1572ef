"""Facts about the machine that a measurement runs on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from loadtests.common.paths import ROOT

_PACKAGES = ("torch", "funasr", "onnxruntime", "numpy", "soxr", "librosa", "fastapi", "uvicorn")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def facts() -> dict[str, str]:
    """Date, revision, machine and versions, by name."""
    load = os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": _revision(),
        "CPU": f"{_cpu()}, {cores()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load before": f"{load:.2f}",
        "system": platform.platform(terse=True),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
    }


def clean_environment() -> dict[str, str]:
    """The environment for the processes that are measured.

    It has no settings of the service (`SER_*`), and lets Python keep bytecode, which an installed package has: without
    it, a checkout would be compiled at each start.
    """
    left_out = {"PYTHONDONTWRITEBYTECODE"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.upper().startswith("SER_")
    }


_INSTRUCTION_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


def _cpu() -> str:
    """The processor's name, and those of its instruction sets that decide about kernels for bytes and halves."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {name.strip(): value.strip() for name, _, value in lines}
    flags = found.get("flags", "").split()
    sets = [flag for flag in _INSTRUCTION_SETS if flag in flags]
    return f"{found.get('model name', platform.machine())} ({', '.join(sets) or 'no AVX2'})"


def _revision() -> str:
    def git(*args: str) -> str:
        answer = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    return f"{git('rev-parse', '--short=12', 'HEAD') or 'none'}{' and changes' if git('status', '--porcelain') else ''}"
