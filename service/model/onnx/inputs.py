"""The inputs of the graph of `service.model.onnx.graph`: clips laid one after another into a single sequence.

Matrix products of few rows do not keep all cores busy, so short clips share a run. A clip does not influence the
others: the front end uses no padding and its rows that straddle two clips are left out, zeros separate clips in the
positional convolutions, and attention is computed clip by clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.model.config import ModelConfig
from service.results import Floats

ATTENTION_ELEMENTS = 524_288
"""Attention scores of one block of queries, over all heads: 2 MiB, which stay in the cores' own caches."""
MIN_QUERIES = 64
"""The fewest queries of a block; with fewer, matrix products would not keep all cores busy."""
MIN_ROWS = 65
"""The fewest rows of the positional convolutions. With fewer, ONNX Runtime sums in another order, so that clips that
share a run would differ from single clips by rounding."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one run.

    Attributes:
        tensors: by the names of the graph's inputs.
        frames: for each clip, the rows of the graph's outputs that are its frames.
    """

    tensors: dict[str, NDArray[np.float32] | NDArray[np.int64]]
    frames: tuple[slice, ...]


def lay_out(waveforms: Sequence[Floats], config: ModelConfig) -> Inputs:
    """The inputs for one run of one or more clips.

    Args:
        waveforms: one or more of shape (time,), float32 at 16 kHz, normalised as the model expects, and each long
            enough for one frame.
        config: the dimensions of the model.

    Returns:
        `waveform` (time,): the clips, each but the last padded with zeros to whole hops.
        `rows` (row,): the front end's rows that go into the positional convolutions; the index one past the last row
        stands for zeros, of which half a kernel separates two clips.
        `tokens` (token,): the transformer's tokens, for each clip the extra tokens and then its frames; a frame is
        given by its index in `rows` plus the number of extra tokens.
        `places` (token,): the index of a frame in its clip; -1 for extra tokens.
        `plan` (clip, 5): the first token, the end of the tokens, the queries of an attention block, the number of
        blocks, and by how many queries the blocks exceed the tokens.
    """
    extra, first = config.num_extra_tokens, config.samples(1)
    hop = config.samples(2) - first
    counts = [(waveform.size - first) // hop + 1 for waveform in waveforms]
    hops = [-(-waveform.size // hop) for waveform in waveforms]
    zero_row = sum(hops[:-1]) + counts[-1]  # one past the rows that the front end makes
    gap = np.full(config.conv_pos_kernel // 2, zero_row)
    rows, tokens, places, plan, frames = [], [], [], [], []
    row = column = token = 0
    for count, length in zip(counts, hops, strict=True):
        rows += [np.arange(row, row + count), gap]
        tokens += [np.arange(extra), np.arange(extra + column, extra + column + count)]
        places += [np.full(extra, -1.0), np.arange(count)]
        plan.append([token, token + extra + count, *_blocks(extra + count, config.num_heads)])
        frames.append(slice(token + extra, token + extra + count))
        row, column, token = row + length, column + count + gap.size, token + extra + count
    rows[-1] = np.full(max(0, MIN_ROWS - (column - gap.size)), zero_row)
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
    """The queries of a block, the number of equal blocks, and by how many queries the blocks exceed the tokens."""
    most = max(ATTENTION_ELEMENTS // heads // tokens, MIN_QUERIES)
    steps = -(-tokens // most)
    size = -(-tokens // steps)
    return size, steps, size * steps - tokens


def _joined(waveforms: Sequence[Floats], hop: int) -> Floats:
    if len(waveforms) == 1:
        return waveforms[0]
    padded = [np.pad(waveform, (0, -waveform.size % hop)) for waveform in waveforms[:-1]]
    return np.concatenate([*padded, waveforms[-1]])
