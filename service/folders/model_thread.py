"""The model in a thread of its own, for threads that each have one clip."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from service.errors import BackendBroken, InferenceFailed, SetupError
from service.inference.backend import Backend, BatchLimits
from service.results import BatchOutput, Clip, ModelInfo

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Asked:
    clip: Clip
    answer: Future[BatchOutput] = field(default_factory=Future)


class ModelThread:
    """Runs what several threads ask for; clips that come while the model works go into its next run together.

    Args:
        open_backend: opens the model; called in the thread that will run it.

    Raises:
        SetupError: if the model cannot be opened.
    """

    def __init__(self, open_backend: Callable[[], Backend]) -> None:
        self._thread = ThreadPoolExecutor(1, "model")
        self._backend = self._thread.submit(open_backend).result()
        self._waiting: deque[_Asked] = deque()  # appended to by any thread, taken from by the model's alone

    @property
    def info(self) -> ModelInfo:
        """Which model answers."""
        return self._backend.info

    @property
    def limits(self) -> BatchLimits:
        """The largest batch of one run."""
        return self._backend.limits

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        """What the model finds in one clip; the times are those of the run that it was in.

        Raises:
            InferenceFailed: if the model fails on this clip, or `close` was called.
            SetupError: if the model does not work any more.
        """
        (clip,) = clips
        asked = _Asked(clip)
        self._waiting.append(asked)
        try:
            self._thread.submit(self._work_off)
        except RuntimeError:  # nobody waits for this file any more
            raise InferenceFailed("The run was given up.") from None
        try:
            return asked.answer.result()
        except BackendBroken as error:
            raise SetupError("The model does not work any more; the same command goes on from here.") from error
        except Exception as error:  # concerns this clip alone, as a backend promises
            logger.exception("the model failed")
            raise InferenceFailed("The model failed on this audio.") from error

    def close(self, *, wait: bool) -> None:
        """Let go of the model once it has done what was asked for; with `wait`, only then return."""
        self._thread.submit(self._backend.close)
        self._thread.shutdown(wait=wait)

    def _work_off(self) -> None:
        batch = self._take()
        if batch and not self._answer(batch) and len(batch) > 1:
            for asked in batch:
                self._answer([asked])

    def _take(self) -> list[_Asked]:
        """As many as make a batch; none where those that were waited for went with an earlier one."""
        limits, seconds = self._backend.limits, 0.0
        batch: list[_Asked] = []
        while self._waiting and len(batch) < limits.clips:
            clip = self._waiting[0].clip
            seconds += clip.samples.size / clip.sampling_rate
            if batch and seconds > limits.seconds:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _answer(self, batch: Sequence[_Asked]) -> bool:
        """Run a batch; False if it fails. A clip that fails alone is told so."""
        try:
            output = self._backend.run([asked.clip for asked in batch])
            if len(output.clips) != len(batch):
                raise RuntimeError(f"the backend answered {len(output.clips)} of {len(batch)} clips")
        except BaseException as error:  # whatever it is, somebody waits for it
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            return False
        for asked, clip in zip(batch, output.clips, strict=True):
            asked.answer.set_result(replace(output, clips=(clip,)))
        return True
