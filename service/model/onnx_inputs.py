"""What goes into the graph of `service.model.onnx_graph`: clips, laid one after another into a single sequence.

Products of few rows starve the cores, so short clips share a run. None notices another: the front end pads nothing and
rows that straddle two clips are left out, clips lie apart for the convolutions over positions, and to attention
another clip is as far away as the end of a long one (`LOWEST_BIAS`: its weights are below e^-60).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.model.config import ModelConfig
from service.results import Floats

APART = 1e30
"""Distance between the tokens of two clips: even with the least slope, more than the bias can tell."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One run.

    Attributes:
        tensors: by the names that the graph gives its inputs.
        frames: for each clip, which rows of the graph's outputs are its frames.
    """

    tensors: dict[str, NDArray[np.float32] | NDArray[np.int64]]
    frames: tuple[slice, ...]


def lay_out(waveforms: Sequence[Floats], config: ModelConfig) -> Inputs:
    """The inputs for clips that shall be answered by one run.

    Args:
        waveforms: one or more of shape (time,), float32 at 16 kHz, normalised as the model wants it; each long enough
            for one frame.
        config: the dimensions of the model.

    Returns:
        `waveform` (time,): the clips, each but the last filled up with zeros to whole hops.
        `rows` (row,): which rows of the front end the convolutions over positions see; one past the last row stands for
        zeros, as many between two clips as a kernel reaches.
        `tokens` (token,): what the transformer sees: for each clip the extra tokens and then its frames, which are
        those of `rows`, counted behind the extra tokens.
        `places` (token,): which frame of its clip a token is; -1 for extra tokens.
        `owners` (token,): the clip it belongs to, in multiples of `APART`.
    """
    extra, first = config.num_extra_tokens, config.samples(1)
    hop = config.samples(2) - first
    counts = [(waveform.size - first) // hop + 1 for waveform in waveforms]
    hops = [-(-waveform.size // hop) for waveform in waveforms]
    last = len(waveforms) - 1
    none = sum(hops[:-1]) + counts[-1]  # the rows that the front end makes
    gap = np.full(config.conv_pos_kernel // 2, none)
    parts, rows, tokens, places, owners, frames = [], [], [], [], [], []
    row = column = token = 0
    for index, (waveform, count) in enumerate(zip(waveforms, counts, strict=True)):
        parts.append(waveform)
        rows.append(np.arange(row, row + count))
        tokens += [np.arange(extra), np.arange(extra + column, extra + column + count)]
        places += [np.full(extra, -1.0), np.arange(count)]
        owners.append(np.full(extra + count, index * APART))
        frames.append(slice(token + extra, token + extra + count))
        row, column, token = row + hops[index], column + count + gap.size, token + extra + count
        if index < last:
            parts.append(np.zeros(hops[index] * hop - waveform.size, np.float32))
            rows.append(gap)
    return Inputs(
        {
            "waveform": np.concatenate(parts) if last else waveforms[0],
            "rows": np.concatenate(rows),
            "tokens": np.concatenate(tokens),
            "places": np.concatenate(places).astype(np.float32),
            "owners": np.concatenate(owners).astype(np.float32),
        },
        tuple(frames),
    )
