"""The child processes that run FFmpeg for this process."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> set[int]:
    """Process ids of the decoding children of this process."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"ffmpeg.child_main" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def state(process: int) -> str:
    """State of a process: R running or runnable, S sleeping, Z zombie."""
    return _stat(process)[0]


def ticks(process: int) -> int:
    """Processor time of a process, in hundredths of a second."""
    user, system = _stat(process)[11:13]
    return int(user) + int(system)


def _stat(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
