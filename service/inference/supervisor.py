"""Starts the worker, restarts it after a death, and stops it.

    loading ──▶ ready ──▶ dead (for a pause, longer after every consecutive death) ──▶ loading …

Some GPU errors last until the process ends. So `MAX_FAILED_LOADS` consecutive failed loads are reported as a permanent
failure; loads are retried until the process exits.

All methods belong to the event loop; `phase`, `alive` and `memory` may be read from any thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from service.errors import SetupError
from service.inference.backend import Backend
from service.inference.request_queue import Entry, RequestQueue
from service.inference.worker import Loaded, Run, Worker, WorkerEvents

logger = logging.getLogger(__name__)

Phase = Literal["loading", "ready", "dead"]

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a restart: the first pause, which doubles with every consecutive death, and the longest."""

MAX_FAILED_LOADS = 6
"""Consecutive failed loads before the failure is reported as permanent, and the server exits."""


class Supervisor:
    """Owns the worker of one engine through all its restarts.

    Args:
        load: makes the backend; called in every new worker thread.
        queue: where workers take clips from.
        time_limit: gives the seconds that a run with so many seconds of audio may take before the worker counts as
            stuck; called from any thread.
        ready, finished, failed: as in `WorkerEvents`.
        broke: as in `WorkerEvents`, called once `phase` is `dead`; while stopping, `died` is called instead.
        died: called for every other death, once `phase` is `dead`.

    Attributes:
        phase: the state of the worker.
        pause: seconds before the next restart.
    """

    def __init__(
        self,
        load: Callable[[], Backend],
        queue: RequestQueue,
        time_limit: Callable[[float], float],
        *,
        ready: Callable[[Loaded], None],
        finished: Callable[[Run], None],
        failed: Callable[[Entry], None],
        broke: Callable[[Sequence[Entry]], None],
        died: Callable[[], None],
    ) -> None:
        self.phase: Phase = "loading"
        self.pause = SHORTEST_PAUSE
        self._load = load
        self._queue = queue
        self._time_limit = time_limit
        self._report_ready = ready
        self._report_broke = broke
        self._report_died = died
        self._events = WorkerEvents(self._on_ready, finished, failed, self._on_broke, self._on_died, self._on_ended)
        self._worker: Worker | None = None
        self._setup_error: SetupError | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._stopping = False
        self._failed_loads = 0
        self._failed_permanently = asyncio.Event()
        self._decided = asyncio.Event()  # ready, failed with a SetupError, or stopping
        self._no_thread = asyncio.Event()
        self._no_thread.set()

    @property
    def alive(self) -> bool:
        """Whether a worker thread loads or runs and is not stuck."""
        # A thread that has ended does not count as stuck while the loop has not yet processed its last reports.
        worker = self._worker  # read once, since the loop may drop it while another thread reads
        return worker is not None and self.phase != "dead" and not worker.stuck(self._time_limit)

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes of device memory by kind, as of the worker's last run."""
        worker = self._worker
        return worker.memory if worker is not None else {}

    def end_unwanted_run(self) -> None:
        """End the present run if no caller waits for any of its clips and the backend can end it."""
        if self._worker is not None:
            self._worker.end_unwanted_run()

    def start(self) -> None:
        """Start a worker thread; no other one may exist."""
        self.phase = "loading"
        self._setup_error = None
        self._decided.clear()
        self._no_thread.clear()
        self._worker = Worker(self._load, self._queue, asyncio.get_running_loop(), self._events)
        try:
            self._worker.start()
        except RuntimeError:
            logger.exception("the thread of the inference worker cannot be started")
            self._on_died(None)
            self._retire()

    async def wait_ready(self) -> bool:
        """Wait until the worker is ready; False if it is stopped instead.

        Raises:
            SetupError: as `load` raised it, or because too many loads have failed; loads are retried even then.
        """
        while True:
            await self._decided.wait()
            if self._stopping:
                return False
            if self._setup_error is not None:
                raise self._setup_error
            if self.phase == "ready":
                return True

    async def wait_permanent_failure(self) -> None:
        """Wait until `MAX_FAILED_LOADS` consecutive loads have failed."""
        await self._failed_permanently.wait()

    def stop(self) -> None:
        """Do not restart any more; the present worker runs until the queue is closed."""
        self._stopping = True
        self._decided.set()
        if self._restart is not None:
            self._restart.cancel()

    async def wait_ended(self) -> None:
        """Wait until there is no worker thread."""
        await self._no_thread.wait()

    def _on_ready(self, loaded: Loaded) -> None:
        self.phase = "ready"
        self._failed_loads = 0
        self._decided.set()
        self._report_ready(loaded)

    def _on_broke(self, entries: Sequence[Entry]) -> None:
        if self._stopping:
            self._on_died(None)
            return
        self._note_death()
        self._decided.clear()
        self._report_broke(entries)

    def _on_died(self, error: SetupError | None) -> None:
        if self.phase == "loading" and not self._stopping:
            self._failed_loads += 1
        if self._failed_loads >= MAX_FAILED_LOADS:
            error = error or SetupError(f"The model could not be loaded {self._failed_loads} times; the log says why.")
            self._failed_permanently.set()
        self._note_death()
        self._setup_error = error
        if error is not None:
            self._decided.set()
        elif not self._stopping:
            self._decided.clear()
        self._report_died()

    def _note_death(self) -> None:
        self.phase = "dead"
        # Only an answer resets the pause, so that a worker which always dies on its first batch is not reloaded ten
        # times a second.
        if self._worker is not None and self._worker.answered:
            self.pause = SHORTEST_PAUSE

    def _on_ended(self) -> None:
        if self._worker is not None:
            self._worker.join()
        if self.phase != "dead" and not self._stopping:
            self._on_died(None)  # it ended without reporting its death
        self._retire()

    def _retire(self) -> None:
        """Drop the worker, whose thread has ended, and schedule the next one."""
        self._worker = None
        self._no_thread.set()
        if not self._stopping:
            logger.warning("the inference worker is restarted in %.1f s", self.pause)
            self._restart = asyncio.get_running_loop().call_later(self.pause, self.start)
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
