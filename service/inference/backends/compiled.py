"""The encoder as compiled programs, one for each of a few shapes; on CUDA each is recorded as a CUDA graph.

    before ready, largest shape first    compile ▶ run ▶ record ▶ replay; every answer compared with the encoder's
    later                                a shape with a program: copy in ▶ replay ▶ copy out; any other: the encoder

What decides the order of things here, as of torch 2.14 (`torch/_inductor/cudagraph_trees.py`):
- The first call of a program compiles it and runs it once, the second records it, and only the third replays it.
- All programs share one pool of memory. The largest comes first, so that the others fit into what it has left.
- A replay overwrites what any program has answered before. So answers are copied before anybody else sees them.
- Inputs may lie anywhere: a replay begins by copying them to where the graph reads them. Weights must stay where they
  are.
- The graphs belong to the thread that recorded them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from service.inference.backends.buckets import Shape
from service.inference.backends.check_clips import long_clip
from service.inference.backends.precision import TOLERANCE
from service.model.config import ModelConfig
from service.model.network.encoder import Encoded, Encoder
from service.model.synthetic_speech import normalized
from service.results import SAMPLING_RATE

logger = logging.getLogger(__name__)

_Answer = Callable[[Tensor, Tensor], Encoded]

_CALLS = 3
"""Calls until a program replays."""

_LIMIT = 1024
"""Programs that torch may keep for one function; by default it stops at eight."""


class CompileFailed(Exception):
    """A program could not be made; the cause says why."""


class CompiledEncoder:
    """Answers like the encoder that it holds, by a compiled program where there is one.

    Args:
        encoder: what is compiled.
        config: its dimensions.
        shapes: the padded batches to make programs for.
    """

    def __init__(self, encoder: Encoder, config: ModelConfig, shapes: Sequence[Shape]) -> None:
        self._encoder = encoder
        self._config = config
        self._shapes = sorted(shapes, key=lambda shape: shape.area, reverse=True)
        self._ready: list[Shape] = []
        weight = encoder.get_parameter("blocks.0.mlp.fc1.weight")
        self._device, self._dtype = weight.device, weight.dtype
        self._program: _Answer = encoder.answer

    @property
    def programs(self) -> Sequence[Shape]:
        """The shapes that have a program, smallest first; none before `compile`."""
        return self._ready

    def compile(self) -> None:
        """Make all programs; takes seconds for each, or much longer where torch has not kept them.

        A program that does not answer as the encoder does is left out, with a warning.

        Raises:
            CompileFailed: if one cannot be made; there are none then.
        """
        began = time.monotonic()
        self._program = _compiled(self._encoder.answer, self._device)
        ready = []
        with (
            torch.no_grad(),
            torch._dynamo.config.patch(recompile_limit=_LIMIT, accumulated_recompile_limit=_LIMIT),
        ):
            for number, shape in enumerate(self._shapes, 1):
                started = time.monotonic()
                try:
                    difference = self._rehearse(shape)
                except Exception as error:
                    raise CompileFailed(f"no program for {_named(shape)}") from error
                if difference <= 2 * TOLERANCE[self._dtype]:  # each of the two may be off by one tolerance
                    ready.append(shape)
                else:
                    logger.warning("the program for %s is wrong by %.1e and left out", _named(shape), difference)
                seconds = time.monotonic() - started
                logger.info("program %d of %d, %s: %.1f s", number, len(self._shapes), _named(shape), seconds)
        # Only now: a failure half-way leaves none.
        self._ready = ready[::-1]
        logger.info("%d programs are ready after %.1f s", len(ready), time.monotonic() - began)

    def answer(self, waveforms: Tensor, frames: Tensor | None = None) -> Encoded:
        """Encode a batch; arguments as in `Encoder.forward`. What is answered stays valid after later calls."""
        shape = Shape(waveforms.shape[0], self._config.frames(waveforms.shape[1]))
        if frames is None or shape not in self._ready:
            return self._encoder.answer(waveforms, frames)
        # Nothing may ever be compiled between two requests: what the program does not take, the encoder answers.
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._run(waveforms, frames)

    def close(self) -> None:
        """Let go of all programs and of their memory."""
        self._ready = []
        if self._program != self._encoder.answer:
            self._program = self._encoder.answer
            torch.compiler.reset()

    def _run(self, waveforms: Tensor, frames: Tensor) -> Encoded:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call] # torch has no types there
        return Encoded(*(values.clone() for values in self._program(waveforms, frames)))

    def _rehearse(self, shape: Shape) -> float:
        """Call the program of a shape until it replays, with other speech each time: its largest error in scores."""
        differences = []
        for seed in range(_CALLS):
            waveforms, frames = self._speech(shape, seed)
            found = self._run(waveforms, frames)
            expected = self._encoder.answer(waveforms, frames)
            differences += [
                (_scores(found, row, count) - _scores(expected, row, count)).abs().max()
                for row, count in enumerate(frames.tolist())
            ]
        return float(torch.stack(differences).max())

    def _speech(self, shape: Shape, seed: int) -> tuple[Tensor, Tensor]:
        """A batch of speech, the first row whole, others up to half padding, and the frames of each row."""
        counts = [max(1, shape.frames * (2 * shape.rows - row) // (2 * shape.rows)) for row in range(shape.rows)]
        batch = np.zeros((shape.rows, self._config.samples(shape.frames)), np.float32)
        for row, count in enumerate(counts):
            samples = self._config.samples(count)
            batch[row, :samples] = normalized(long_clip(samples / SAMPLING_RATE, seed * shape.rows + row))
        waveforms = torch.from_numpy(batch).to(self._device, self._dtype)
        return waveforms, torch.tensor(counts, device=self._device)


def _compiled(function: _Answer, device: torch.device) -> _Answer:
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return torch.compile(function, mode=mode, fullgraph=True, dynamic=False)


def _scores(answer: Encoded, row: int, frames: int) -> Tensor:
    return answer.logits[row, :frames].mean(dim=0).softmax(dim=-1)


def _named(shape: Shape) -> str:
    return f"{shape.rows} x {shape.frames / 50:g} s"
