import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.holdings import Census, census, peak_memory, resident_memory

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


def test_a_census_finds_what_is_held(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = census(process.pid)
        process.stdin.write("\n")
        child = int(process.stdout.readline())
        held = census(process.pid)
        process.stdin.write("\n")
        process.stdout.readline()
        after = census(process.pid)
        process.kill()
    assert held.children == {child}
    assert held.files[str(tmp_path)] == 1
    assert held.files["pipe"] > before.files["pipe"]
    assert held.threads == before.threads + 1
    assert not held.within(before)
    assert after.within(held)
    assert not held.within(after)


def test_peak_memory_holds_what_was_once_used() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # forgets what other tests have used
    before = peak_memory(os.getpid())
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    del block
    assert peak_memory(os.getpid()) > max(before, 200)


def test_a_child_that_was_replaced_is_none_more() -> None:
    before = Census(Counter(pipe=2), 3, frozenset({1, 2}))
    assert Census(Counter(pipe=1), 3, frozenset({4, 5})).within(before)
    assert not Census(Counter(pipe=2), 3, frozenset({1, 2, 4})).within(before)
    assert not Census(Counter(socket=1), 3, frozenset()).within(before)
    assert str(before) == "2 files, 3 threads, 2 children"


def test_memory_is_that_of_the_children_too() -> None:
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
