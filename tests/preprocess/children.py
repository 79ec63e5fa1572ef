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
            if parent == os.getpid() and b"ffmpeg_process" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found
