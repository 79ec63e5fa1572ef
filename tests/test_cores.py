"""The number of threads follows the CPU set and the quotas of control groups."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from service import cores
from service.inference.backends.select import open_backend
from service.model.store import find


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hierarchy of control groups, on a machine of eight cores."""
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path / "cgroups")
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", 8),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("20000 100000\n", 1),
        ("50000 10000\n", 5),
        ("3200000 100000\n", 8),
        ("", 8),
        ("damaged", 8),
        ("100000 0\n", 8),
    ],
)
def test_version_2(cgroups: Path, limit: str, expected: int) -> None:
    write(cgroups / "membership", "0::/\n")
    write(cgroups / "cgroups/cpu.max", limit)
    assert cores.usable_cores() == expected


def test_the_smallest_quota_of_the_groups_above_holds(cgroups: Path) -> None:
    write(cgroups / "membership", "0::/pods/pod/container\n")
    write(cgroups / "cgroups/pods/cpu.max", "300000 100000\n")
    write(cgroups / "cgroups/pods/pod/container/cpu.max", "max 100000\n")
    assert cores.usable_cores() == 3


@pytest.mark.parametrize(("quota", "expected"), [("200000\n", 2), ("-1\n", 8)])
@pytest.mark.parametrize("group", ["/", "/docker/absent"])
def test_version_1(cgroups: Path, quota: str, expected: int, group: str) -> None:
    write(cgroups / "membership", f"4:memory:/\n3:cpu,cpuacct:{group}\n0::/\n")
    write(cgroups / "cgroups/cpu/cpu.cfs_quota_us", quota)
    write(cgroups / "cgroups/cpu/cpu.cfs_period_us", "100000\n")
    assert cores.usable_cores() == expected


def test_without_control_groups_the_cpu_set_decides(cgroups: Path) -> None:
    assert cores.usable_cores() == 8


def test_the_model_runs_on_as_many_threads(cgroups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cgroups / "membership", "0::/\n")
    write(cgroups / "cgroups/cpu.max", "300000 100000\n")
    stored = find("tiny", cache=tmp_path)
    asked: list[int] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: Path, options: onnxruntime.SessionOptions, **more: Any) -> None:
            asked.append(options.intra_op_num_threads)
            super().__init__(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    open_backend(stored.directory, stored.manifest, device="cpu", backend="onnx", few=True).close()
    assert asked == [3]
