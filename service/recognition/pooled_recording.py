"""A recording whose steps run in the threads of a pool, so that long ones hold neither the loop nor a thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from threading import Lock
from time import perf_counter
from typing import BinaryIO

from service.recognition.concurrency import in_pool
from service.recognition.recording import Recording
from service.results import ChannelUtterance

logger = logging.getLogger(__name__)


class PooledRecording:
    """Opens a recording, takes its steps, and frees it when nobody is at it any more.

    A thread cannot be stopped, so a step whose caller has left goes on to its end, and the file must stay open as long.

    Args:
        pool: in whose threads everything happens.
        file: the upload, closed in the end.
        begin: opens the recording.

    Attributes:
        seconds: how long the steps have taken together, waiting for a thread included.
    """

    def __init__(self, pool: Executor, file: BinaryIO, begin: Callable[[BinaryIO], Recording]) -> None:
        self.seconds = 0.0
        self._pool = pool
        self._file = file
        self._begin = begin
        self._recording: Recording | None = None
        self._at_work = self._given_up = False
        self._lock = Lock()

    @property
    def recording(self) -> Recording:
        """What was opened by the first step."""
        if self._recording is None:
            raise RuntimeError("the recording is opened by its first step")
        return self._recording

    async def step(self) -> Sequence[ChannelUtterance] | None:
        """Take one step, the first of which also opens the file; see `Recording.step`. One at a time.

        Raises:
            ServiceError: as opening and reading do; or Draining, if the pool is shut down.
        """
        began = perf_counter()  # the loop's clock is coarse
        self._at_work = True
        try:
            return await in_pool(self._pool, self._stepped, self._step)
        finally:
            self.seconds += perf_counter() - began

    def close(self) -> None:
        """Free everything, or have the step do it that is running now. Returns at once."""
        with self._lock:
            self._given_up = True
            if self._at_work:
                return
        try:
            job = self._pool.submit(_nothing)  # in a thread, since the decoder's process may take a moment to end
        except RuntimeError:  # the pool is shut down
            self._free()
        else:
            job.add_done_callback(lambda _: self._free())  # also where the pool drops the job

    def _step(self) -> Sequence[ChannelUtterance] | None:
        if self._recording is None:
            self._recording = self._begin(self._file)
        return self._recording.step()

    def _stepped(self) -> None:
        with self._lock:
            self._at_work = False
            if not self._given_up:
                return
        self._free()

    def _free(self) -> None:
        if self._recording is not None:
            self._recording.close()
        self._file.close()


def _nothing() -> None:
    pass
