"""What goes into the graph of `service.model.onnx.graph`: clips, laid one after another into a single sequence.

Products of few rows starve the cores, so short clips share a run. None notices another: the front end pads nothing and
rows that straddle two clips are left out, clips lie apart for the convolutions over positions, and attention is
computed clip by clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.model.config import ModelConfig
from service.results import Floats

ATTENTION_ELEMENTS = 524_288
"""Attention scores held at once, over all heads: 2 MiB, which stay in the cores' own caches."""
MIN_QUERIES = 64
"""Queries a block at least: fewer would starve the matrix product."""
MIN_ROWS = 65
"""Rows for the convolutions over positions at least. ONNX Runtime adds up in another order where there are fewer, and
clips that share a run would differ from single ones in the last bits."""


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
        `plan` (clip, 5): its first token and the one behind its last, queries in a block of attention, the number of
        blocks, and by how many queries they exceed its tokens.
    """
    extra, first = config.num_extra_tokens, config.samples(1)
    hop = config.samples(2) - first
    counts = [(waveform.size - first) // hop + 1 for waveform in waveforms]
    hops = [-(-waveform.size // hop) for waveform in waveforms]
    none = sum(hops[:-1]) + counts[-1]  # the rows that the front end makes
    gap = np.full(config.conv_pos_kernel // 2, none)
    rows, tokens, places, plan, frames = [], [], [], [], []
    row = column = token = 0
    for count, length in zip(counts, hops, strict=True):
        rows += [np.arange(row, row + count), gap]
        tokens += [np.arange(extra), np.arange(extra + column, extra + column + count)]
        places += [np.full(extra, -1.0), np.arange(count)]
        plan.append([token, token + extra + count, *_blocks(extra + count, config.num_heads)])
        frames.append(slice(token + extra, token + extra + count))
        row, column, token = row + length, column + count + gap.size, token + extra + count
    rows[-1] = np.full(max(0, MIN_ROWS - (column - gap.size)), none)
    return Inputs(
        {
            "waveform": _joined(waveforms, hop),
            "rows": np.concatenate(rows),
            "tokens": np.concatenate(tokens),
            "places": np.concatenate(places).astype(np.float32),
            "plan": np.array(plan, np.int64),
        },
        tuple(frames),
    )


def _blocks(tokens: int, heads: int) -> tuple[int, int, int]:
    """Queries in a block, the number of blocks, and queries that are too many, for as many equal blocks as needed."""
    most = max(ATTENTION_ELEMENTS // heads // tokens, MIN_QUERIES)
    steps = -(-tokens // most)
    size = -(-tokens // steps)
    return size, steps, size * steps - tokens


def _joined(waveforms: Sequence[Floats], hop: int) -> Floats:
    if len(waveforms) == 1:
        return waveforms[0]
    filled = [np.pad(waveform, (0, -waveform.size % hop)) for waveform in waveforms[:-1]]
    return np.concatenate([*filled, waveforms[-1]])
