import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.common.process_resources import ProcessResources, peak_memory, process_resources, resident_memory

HOLDER = """
import subprocess, sys, threading
print(flush=True)
input()
file = open(sys.argv[1], "w")
threading.Thread(target=threading.Event().wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
child.kill()
child.wait()
file.close()
print(flush=True)
input()
"""


def test_open_files_threads_and_children_are_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = process_resources(process.pid)
        process.stdin.write("\n")
        child = int(process.stdout.readline())
        held = process_resources(process.pid)
        process.stdin.write("\n")
        process.stdout.readline()
        after = process_resources(process.pid)
        process.kill()
    assert held.children == {child}
    assert held.files[str(tmp_path)] == 1
    assert held.files["pipe"] > before.files["pipe"]
    assert held.threads == before.threads + 1
    assert not held.within(before)
    assert after.within(held)
    assert not held.within(after)


def test_peak_memory_includes_released_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, which other tests have raised
    before = peak_memory(os.getpid())
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
    assert peak_memory(os.getpid()) > max(before, 200)


def test_a_replaced_child_does_not_count_as_one_more() -> None:
    before = ProcessResources(Counter(pipe=2), 3, frozenset({1, 2}))
    assert ProcessResources(Counter(pipe=1), 3, frozenset({4, 5})).within(before)
    assert not ProcessResources(Counter(pipe=2), 3, frozenset({1, 2, 4})).within(before)
    assert not ProcessResources(Counter(socket=1), 3, frozenset()).within(before)
    assert str(before) == "2 files, 3 threads, 2 children"


def test_memory_includes_that_of_the_children() -> None:
    alone = resident_memory(os.getpid())
    program = "data = bytearray(b'x' * 50_000_000); print(); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_memory(os.getpid()) - alone > 45
        assert resident_memory(child.pid) == pytest.approx(60, abs=15)
        child.kill()
    assert resident_memory(child.pid) == 0
