"""The processes that run FFmpeg for this one."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> set[int]:
    """Process ids of the children of this process that decode."""
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
    """What a process does, in a letter: R it runs or could, S it waits, Z it is over and nobody has asked for it."""
    return _stat(process)[0]


def ticks(process: int) -> int:
    """Processor time that a process has used, in hundredths of a second."""
    used, in_system = _stat(process)[11:13]
    return int(used) + int(in_system)


def _stat(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
