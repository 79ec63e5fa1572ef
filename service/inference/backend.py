"""The interface of a backend: one loaded model, owned by one worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from service.results import BatchOutput, Clip, ModelInfo


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one call of `Backend.run` takes: clips, and seconds of audio over all of them.

    A single clip longer than `seconds` is still accepted, alone.
    """

    clips: int
    seconds: float


class Backend(Protocol):
    """One loaded model. Not thread-safe: only the thread that made it calls it."""

    @property
    def info(self) -> ModelInfo:
        """The model, the device and the precision."""

    @property
    def limits(self) -> BatchLimits:
        """The largest batch that `run` accepts."""

    def warm_up(self) -> float | None:
        """Do one-time preparations (memory, kernels, compiled programs) that would slow down the first requests.

        Returns:
            Seconds that a second of audio took in the last run, alone and warm; None if nothing was run.
        """

    def run(self, clips: Sequence[Clip], cancellation: Future[None] | None = None) -> BatchOutput:
        """Resample, trim, normalise, encode and score `clips`; a clip's output does not depend on the others.

        Every clip holds at least 25 ms of finite samples, which `service.preprocess.clips` checks.

        Args:
            clips: the batch.
            cancellation: cancelled, by any thread, once nobody waits for any clip of the batch. A backend that can end
                a run early then does so, by raising any error; the next run must work as if there had been none.

        Raises:
            BackendBroken: if the backend cannot run any more and must be closed and loaded again.
            Exception: any other error concerns this batch only.
        """

    def memory(self) -> dict[str, int]:
        """Bytes of device memory by kind (`allocated`, `reserved`, `peak`, `total`); empty on the CPU."""

    def close(self) -> None:
        """Release the model."""
