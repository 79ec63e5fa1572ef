import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from loadtests.holdings import Census, census, children, resident_memory


def test_a_census_finds_what_is_held(tmp_path: Path) -> None:
    before = census(os.getpid())
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    with (
        (tmp_path / "file").open("w"),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
    ):
        thread.start()
        held = census(os.getpid())
        assert child.pid in held.children
        assert children(os.getpid()) == set(held.children)
        assert held.files[str(tmp_path)] == 1
        assert held.files["pipe"] > before.files["pipe"]
        assert held.threads == before.threads + 1
        assert not held.within(before)
        gate.set()
        child.kill()
    thread.join()
    assert census(os.getpid()).within(held)


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
