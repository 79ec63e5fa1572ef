"""Resource use of a process, from /proc: memory, open files, threads, child processes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessResources:
    """Resources of a process at one moment.

    Attributes:
        files: open files by kind: `socket`, `pipe` and so on, or the directory of a file.
        threads: number of threads.
        children: process ids of its children.
    """

    files: Counter[str]
    threads: int
    children: frozenset[int]

    def within(self, before: ProcessResources) -> bool:
        """Whether this is no more than before; a child process that was replaced by another does not count."""
        return (
            self.files <= before.files and self.threads <= before.threads and len(self.children) <= len(before.children)
        )

    def __str__(self) -> str:
        return f"{self.files.total()} files, {self.threads} threads, {len(self.children)} children"


def process_resources(pid: int) -> ProcessResources:
    """Resources of a process now."""
    files: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # closed since the directory was listed
        files[re.sub(r":\[\d+\]|/[^/]*$", "", target)] += 1  # sockets and pipes by kind, files by their directory
    return ProcessResources(files, len(list(Path(f"/proc/{pid}/task").iterdir())), frozenset(children(pid)))


def resident_memory(pid: int) -> float:
    """Resident memory of a process and its children now, mapped files included, in MB (10^6 bytes)."""
    return _memory(pid, "VmRSS:")


def peak_memory(pid: int) -> float:
    """Peak resident memory of a process and its children, mapped files included, in MB (10^6 bytes)."""
    return _memory(pid, "VmHWM:")


def children(pid: int) -> set[int]:
    """Process ids of the children of a process."""
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
        return ""  # the process or the thread has ended
