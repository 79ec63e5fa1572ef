"""What a measurement was made on: the machine, and the memory of a process."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from service.model.config import ModelConfig

_PACKAGES = ("torch", "funasr", "onnxruntime", "numpy", "soxr", "librosa", "fastapi", "uvicorn")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def facts() -> dict[str, str]:
    """Date, machine and versions, by name."""
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
    """The environment without settings of the service, for the processes that are measured."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("SER_")}


def operations(config: ModelConfig, seconds: float) -> float:
    """Floating-point operations that the matrix products for one clip need, in units of 10^9."""
    samples = round(seconds * 16_000)
    total, channels = 0, 1
    for layer in config.conv_layers:
        samples = (samples - layer.kernel) // layer.stride + 1
        total += samples * layer.channels * channels * layer.kernel
        channels = layer.channels
    width = config.embed_dim
    total += samples * channels * width
    total += config.conv_pos_depth * samples * width * (width // config.conv_pos_groups) * config.conv_pos_kernel
    tokens = samples + config.num_extra_tokens
    total += config.blocks * tokens * (4 * width**2 + 2 * width * config.mlp_dim + 2 * tokens * width)
    return 2 * total / 1e9


class MatrixProducts:
    """How fast this machine multiplies FP32 matrices, with the library that torch uses (MKL on Intel and AMD)."""

    def gflops(self, threads: int) -> float:
        """The best of several products of 2048 x 2048, in 10^9 operations a second."""
        import torch

        torch.set_num_threads(threads)
        a, b = torch.randn(2, 2048, 2048)
        best = float("inf")
        for _ in range(8):
            began = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - began)
        return 2 * 2048**3 / best / 1e9


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _revision() -> str:
    def git(*args: str) -> str:
        answer = subprocess.run(["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    return f"{git('rev-parse', '--short=12', 'HEAD') or 'none'}{' and changes' if git('status', '--porcelain') else ''}"
