"""The encoder as compiled programs, one for each of a few shapes; on CUDA each is recorded as a CUDA graph.

    warm-up, largest shape first    compile ▶ run ▶ record ▶ replay; each result is compared with the encoder's
    serving                         shape with a program: copy in ▶ replay ▶ copy out; other shapes: the encoder

What the code relies on, as of torch 2.14 (`torch/_inductor/cudagraph_trees.py`):
- The first call of a program compiles and runs it, the second records it, and only the third replays it.
- All programs share one memory pool. The largest comes first, so that the others fit into the memory it has freed.
- A replay overwrites the outputs of earlier replays of any program. So outputs are copied at once.
- A replay first copies its inputs to the addresses that the graph reads. The addresses of weights must not change.
- CUDA graphs belong to the thread that recorded them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from service.inference.backends.buckets import BatchShape
from service.inference.backends.precision import TOLERANCE, long_clip
from service.model.config import ModelConfig
from service.model.network.encoder import Encoded, Encoder
from service.model.normalize import normalized
from service.results import SAMPLING_RATE

logger = logging.getLogger(__name__)

_Program = Callable[[Tensor, Tensor], Encoded]

_CALLS = 3
"""The number of the first call of a program that is a replay."""

_LIMIT = 1024
"""Programs that torch may keep for one function; its default is eight."""


class CompileFailed(Exception):
    """A program could not be compiled; `__cause__` holds the error."""


class CompiledEncoder:
    """An encoder, and compiled programs of it that are used for batches of certain shapes.

    Args:
        encoder: the encoder to compile.
        config: its dimensions.
        shapes: the shapes of padded batches to compile programs for.

    Attributes:
        programs: the shapes that have a program, smallest first; none before `compile`.
    """

    def __init__(self, encoder: Encoder, config: ModelConfig, shapes: Sequence[BatchShape]) -> None:
        self._encoder = encoder
        self._config = config
        self._shapes = sorted(shapes, key=lambda shape: shape.area, reverse=True)
        self.programs: Sequence[BatchShape] = ()
        weight = encoder.get_parameter("blocks.0.mlp.fc1.weight")
        self._device, self._dtype = weight.device, weight.dtype
        self._program: _Program = encoder.encode

    def compile(self) -> None:
        """Compile all programs; takes seconds for each from the cache, else much longer.

        A program whose results differ from the encoder's is not used, and a warning is logged.

        Raises:
            CompileFailed: if a program cannot be compiled; no program is used then.
        """
        began = time.monotonic()
        mode = "reduce-overhead" if self._device.type == "cuda" else "default"
        self._program = torch.compile(self._encoder.encode, mode=mode, fullgraph=True, dynamic=False)
        ready = []
        with (
            torch.no_grad(),
            torch._dynamo.config.patch(recompile_limit=_LIMIT, accumulated_recompile_limit=_LIMIT),
        ):
            for number, shape in enumerate(self._shapes, 1):
                started = time.monotonic()
                try:
                    difference = self._record(shape)
                except Exception as error:
                    raise CompileFailed(f"no program for {_named(shape)}") from error
                if difference <= 2 * TOLERANCE[self._dtype]:  # the error of each of the two may be one tolerance
                    ready.append(shape)
                else:
                    logger.warning(
                        "the program for %s differs by %.1e in scores and is not used", _named(shape), difference
                    )
                seconds = time.monotonic() - started
                logger.info("program %d of %d, %s: %.1f s", number, len(self._shapes), _named(shape), seconds)
        # Set at the end, so that a failure half-way leaves no programs.
        self.programs = ready[::-1]
        logger.info("%d programs are ready after %.1f s", len(ready), time.monotonic() - began)

    def encode(self, waveforms: Tensor, frames: Tensor | None = None) -> Encoded:
        """Encode a batch; arguments as in `Encoder.forward`. The result stays valid after later calls."""
        shape = BatchShape(waveforms.shape[0], self._config.frames(waveforms.shape[1]))
        if frames is None or shape not in self.programs:
            return self._encoder.encode(waveforms, frames)
        # Never compile while serving: where torch would compile again, it runs the encoder instead.
        with torch.compiler.set_stance("eager_on_recompile"):
            return self._run(waveforms, frames)

    def close(self) -> None:
        """Release all programs and their memory."""
        self.programs = ()
        if self._program != self._encoder.encode:
            self._program = self._encoder.encode
            torch.compiler.reset()

    def _run(self, waveforms: Tensor, frames: Tensor) -> Encoded:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call] # torch has no types there
        return Encoded(*(values.clone() for values in self._program(waveforms, frames)))

    def _record(self, shape: BatchShape) -> float:
        """Call the program of a shape on different speech until it replays; returns its largest error in scores."""
        differences = []
        for seed in range(_CALLS):
            waveforms, frames = self._check_batch(shape, seed)
            found = self._run(waveforms, frames)
            expected = self._encoder.encode(waveforms, frames)
            differences += [
                (_scores(found, row, count) - _scores(expected, row, count)).abs().max()
                for row, count in enumerate(frames.tolist())
            ]
        return float(torch.stack(differences).max())

    def _check_batch(self, shape: BatchShape, seed: int) -> tuple[Tensor, Tensor]:
        """A batch of speech and the frames of each row; the first row has no padding, the last is half padding."""
        counts = [max(1, shape.frames * (2 * shape.rows - row) // (2 * shape.rows)) for row in range(shape.rows)]
        batch = np.zeros((shape.rows, self._config.samples(shape.frames)), np.float32)
        for row, count in enumerate(counts):
            samples = self._config.samples(count)
            batch[row, :samples] = normalized(long_clip(samples / SAMPLING_RATE, seed * shape.rows + row))
        waveforms = torch.from_numpy(batch).to(self._device, self._dtype)
        return waveforms, torch.tensor(counts, device=self._device)


def _scores(answer: Encoded, row: int, frames: int) -> Tensor:
    return answer.logits[row, :frames].mean(dim=0).softmax(dim=-1)


def _named(shape: BatchShape) -> str:
    return f"{shape.rows} x {shape.frames / 50:g} s"
