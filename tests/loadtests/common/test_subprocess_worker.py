import os
import sys
import time
from collections.abc import Iterator

import pytest

from loadtests.common.subprocess_worker import SubprocessWorker, SubprocessWorkerFailed


class Adder:
    """An object in a subprocess."""

    def __init__(self, start: int) -> None:
        sys.stdout.write("libraries print\n")
        sys.stdout.flush()
        self._sum = start

    def add(self, value: int) -> int:
        os.write(1, b"also below Python\n")
        self._sum += value
        return self._sum

    def end(self) -> None:
        os._exit(3)


@pytest.fixture
def worker() -> Iterator[SubprocessWorker]:
    with SubprocessWorker(Adder, 1) as made:
        yield made


def test_state_lives_in_another_process(worker: SubprocessWorker) -> None:
    assert worker.call("add", 2) == 3
    assert worker.call("add", 2) == 5
    assert worker.pid != os.getpid()


def test_an_exception_comes_back_and_the_process_goes_on(worker: SubprocessWorker) -> None:
    with pytest.raises(SubprocessWorkerFailed, match="TypeError"):
        worker.call("add", "text")
    assert worker.call("add", 1) == 2


def test_the_end_of_the_process_is_an_error(worker: SubprocessWorker) -> None:
    with pytest.raises(SubprocessWorkerFailed, match="status 3"):
        worker.call("end")


def test_failing_to_make_the_object_is_an_error() -> None:
    with pytest.raises(SubprocessWorkerFailed, match="TypeError"):
        SubprocessWorker(Adder)


def test_closing_ends_the_process() -> None:
    with SubprocessWorker(time.struct_time, tuple(range(9))) as worker:
        pid = worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
