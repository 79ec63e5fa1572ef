"""How many processor cores this process may use: those of its CPU set, within the quota of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The number of cores, at least one; a part of a core counts as a whole one.

    `docker run --cpus` and the CPU limits of Kubernetes are quotas. Threads beyond a quota use it up early in each
    period, and then none of them runs until the next one.
    """
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *_quotas()])))


def _quotas() -> Iterator[float]:
    """The quotas of this process's control groups and of those above them, in cores; versions 1 and 2."""
    for line in _read(_MEMBERSHIP).splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0":
            for directory in _with_parents(_CGROUPS, group):
                quota, _, period = _read(directory / "cpu.max").partition(" ")
                yield from _quota(quota, period)
        elif "cpu" in controllers.split(","):
            for directory in _with_parents(_CGROUPS / "cpu", group):
                yield from _quota(_read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us"))


def _with_parents(root: Path, group: str) -> Iterator[Path]:
    """The directories of a group and of those above it; in a container only the root may exist, which is its own."""
    below = PurePosixPath(group.lstrip("/"))
    for path in (below, *below.parents):
        yield root / path


def _quota(quota: str, period: str) -> Iterator[float]:
    """The quota in cores, if there is one: `max` and -1 mean none."""
    if quota.strip().isdecimal() and period.strip().isdecimal() and int(period) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
