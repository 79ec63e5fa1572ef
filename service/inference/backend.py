"""What every way of running the model offers to the worker thread that owns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.results import BatchOutput, Clip, ModelInfo


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much one call of `Backend.run` may hold: clips, and seconds of audio over all of them.

    A single clip longer than `seconds` still makes a batch of its own.
    """

    clips: int
    seconds: float


class Backend(Protocol):
    """One loaded model. Only the thread that made it calls it."""

    @property
    def info(self) -> ModelInfo:
        """Which model answers, on what, in which precision."""

    @property
    def limits(self) -> BatchLimits:
        """The largest batch that `run` takes."""

    def warm_up(self) -> None:
        """Run what the first requests would otherwise pay for: the largest batch first, then one clip."""

    def run(self, clips: Sequence[Clip]) -> BatchOutput:
        """Resample, trim, normalise, encode and score `clips`; the answers equal those of single clips.

        Every clip holds at least 25 ms of finite samples; `service.preprocess.clips` has seen to that.

        Raises:
            BackendBroken: if no later run can succeed either; the backend is then closed, and a new one is loaded.
            Exception: anything else concerns this batch alone.
        """

    def memory(self) -> dict[str, int]:
        """Bytes of device memory by kind (`allocated`, `reserved`, `peak`, `total`); empty on the CPU."""

    def close(self) -> None:
        """Release the model."""
