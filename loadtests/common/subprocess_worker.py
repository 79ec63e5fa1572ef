"""A subprocess that holds one object and calls its methods on request, one at a time, over its pipes.

Each implementation that is measured runs in a process of its own, so that the thread pools of torch and ONNX Runtime do
not compete, and so that peak memory is that of one implementation.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from types import TracebackType
from typing import Any, Self

from loadtests.common.machine import clean_environment


class SubprocessWorkerFailed(Exception):
    """A call raised an exception in the subprocess, or the subprocess ended."""


class SubprocessWorker:
    """Creates an object in a subprocess and calls its methods there.

    Args:
        make: a class at the top level of a module.
        args: arguments of the class; pickled.
    """

    def __init__(self, make: type, *args: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.common.subprocess_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
        )
        try:
            self._exchange((make, args))
        except SubprocessWorkerFailed:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def call(self, method: str, *args: object) -> Any:
        """Call a method there and return its result.

        Raises:
            SubprocessWorkerFailed: if the call raised, with its traceback, or if the subprocess has ended.
        """
        return self._exchange((method, args))

    def _exchange(self, message: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
            done, value = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise SubprocessWorkerFailed(f"the subprocess ended with status {self._process.wait()}") from None
        if not done:
            raise SubprocessWorkerFailed(value)
        return value

    def close(self) -> None:
        """Kill the subprocess."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Answer calls until the pipe is closed."""
    # Output of libraries goes to standard error, so that it does not mix with the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    target: Any = None
    while True:
        try:
            call, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if target is None:
                target = call(*args)
                value = None
            else:
                value = getattr(target, call)(*args)
        except Exception:
            pickle.dump((False, traceback.format_exc()), answers)
        else:
            pickle.dump((True, value), answers)
        answers.flush()


if __name__ == "__main__":
    main()
