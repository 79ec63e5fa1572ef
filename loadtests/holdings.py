"""What a process holds on to: memory, open files, threads, child processes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Census:
    """What a process holds at a moment: open files by what they are, threads, and child processes."""

    files: Counter[str]
    threads: int
    children: frozenset[int]

    def within(self, before: Census) -> bool:
        """Whether this is no more than before; a child that was replaced is none more."""
        return (
            self.files <= before.files and self.threads <= before.threads and len(self.children) <= len(before.children)
        )

    def __str__(self) -> str:
        return f"{self.files.total()} files, {self.threads} threads, {len(self.children)} children"


def census(pid: int) -> Census:
    """What a process holds now."""
    files: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # closed meanwhile
        files[re.sub(r":\[\d+\]|/[^/]*$", "", target)] += 1  # sockets and pipes by kind, files by their directory
    return Census(files, len(list(Path(f"/proc/{pid}/task").iterdir())), frozenset(children(pid)))


def resident_memory(pid: int) -> float:
    """MB (10^6 bytes) of memory that a process and its children have now, mapped files included."""
    return _memory(pid, "VmRSS:")


def peak_memory(pid: int) -> float:
    """Most MB (10^6 bytes) of memory that a process and its children have had, mapped files included."""
    return _memory(pid, "VmHWM:")


def children(pid: int) -> set[int]:
    """Its child processes."""
    tasks = Path(f"/proc/{pid}/task")
    names = [task.name for task in tasks.iterdir()] if tasks.exists() else []
    return {int(child) for name in names for child in _read(pid, f"task/{name}/children").split()}


def _memory(pid: int, line: str) -> float:
    own = next((int(each.split()[1]) for each in _read(pid, "status").splitlines() if each.startswith(line)), 0)
    return own * 1024 / 1e6 + sum(_memory(child, line) for child in children(pid))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""  # the process or the thread has ended meanwhile
