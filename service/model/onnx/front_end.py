"""The front end in ONNX: strided convolutions as matrix products, channels last, a chunk of frames at a time.

With channels last, there is no transposition between the convolutions and their layer norms. For a convolution of
stride s, groups of s rows are reshaped into one row each, which copies nothing. The taps past the stride are the first
rows of the next group; they are gathered and concatenated.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.model.config import ConvLayer, ModelConfig
from service.model.onnx.linear import linear
from service.model.onnx.operators import AUDIO, Graph, Weights, layer_norm

FRAMES = 32
"""Frames of a chunk; the second layer's input is then 4 MiB."""


def front_end(graph: Graph, config: ModelConfig, weights: Weights) -> str:
    """Map the waveform (time,) to projected features (frame, width).

    The first layer makes 64 rows of 512 channels for each frame; those of a chunk stay in the caches.
    """
    first = config.samples(1)
    hop = config.samples(2) - first
    time = graph.length("waveform")
    frames = graph.op("Add", graph.op("Div", graph.op("Sub", time, graph.ints(first)), graph.ints(hop)), graph.ints(1))
    steps = graph.ceil_div(frames, graph.ints(FRAMES))
    size = graph.ceil_div(frames, steps)
    advance = graph.op("Mul", size, graph.ints(hop))
    window = graph.op("Add", advance, graph.ints(first - hop))
    needed = graph.op("Add", graph.op("Mul", advance, steps), graph.ints(first - hop))
    missing = graph.op("Max", graph.op("Sub", needed, time), graph.ints(0))
    waveform = graph.pad_end("waveform", missing, axis=0, rank=1)
    layers = _layers(graph, config, size)

    def chunk(body: Graph, step: str) -> str:
        begin = body.op("Mul", step, advance)
        x = body.slice(waveform, begin, body.op("Add", begin, window))
        for layer in layers:
            x = layer.apply(body, x, weights)
        x = body.slice(x, body.ints(0), size) if layers[-1].surplus else x
        x = layer_norm(body, x, "project.norm", 1e-5, weights, AUDIO + "project_features.1")
        name = AUDIO + "project_features.2"
        return linear(body, None, x, "project", weights[name + ".weight"].T, weights[name + ".bias"])

    x = graph.loop(steps, "front_end", chunk)  # (step, frame, width)
    x = graph.op("Reshape", x, graph.ints(-1, config.embed_dim))
    return graph.slice(x, graph.ints(0), frames)


def _layers(graph: Graph, config: ModelConfig, size: str) -> list[_Layer]:
    """The convolutions for chunks of `size` frames."""
    per_frame = math.prod(layer.stride for layer in config.conv_layers)
    surplus, channels = config.samples(1) - per_frame, 1
    layers = []
    for index, layer in enumerate(config.conv_layers):
        layers.append(_Layer(graph, index, layer, channels, per_frame, surplus, size))
        per_frame, surplus, channels = per_frame // layer.stride, surplus // layer.stride, layer.channels
    return layers


class _Layer:
    """One convolution without padding, its layer norm and GELU, on rows (time, channel).

    It makes one row of every whole group of `stride` rows. The last rows out may be invalid, because their taps reach
    past the end; no valid frame depends on them.

    Args:
        graph: the graph outside the loop, for values that all chunks share.
        index: of the layer.
        layer: its dimensions.
        channels: of an input row.
        per_frame: input rows for each frame of a chunk.
        surplus: input rows beyond those.
        size: frames of a chunk.

    Attributes:
        surplus: output rows beyond those for the frames.
    """

    def __init__(
        self, graph: Graph, index: int, layer: ConvLayer, channels: int, per_frame: int, surplus: int, size: str
    ) -> None:
        self.surplus = surplus // layer.stride
        self._index, self._layer, self._channels = index, layer, channels
        # Only whole groups are used. Where all are whole there is no slice, which would copy all rows.
        kept = surplus - surplus % layer.stride
        rows = graph.op("Add", graph.op("Mul", size, graph.ints(per_frame)), graph.ints(kept))
        self._cut = rows if kept < surplus else None
        # All taps of a waveform are gathered, since reshaping rows of one sample each gains nothing.
        self._group = 0 if channels == 1 else layer.stride
        self._beyond = layer.kernel - self._group
        self._taps = self._indices(graph, rows) if self._beyond else ""

    def _indices(self, graph: Graph, rows: str) -> str:
        """The rows of the taps past the group, group after group; limited to the last row."""
        begin = graph.op("Squeeze", graph.op("Add", rows, graph.ints(self._group)))
        starts = graph.op("Range", graph.scalar(self._group), begin, graph.scalar(self._layer.stride))
        taps = graph.weight(f"taps_{self._beyond}", np.arange(self._beyond, dtype=np.int64))
        indices = graph.op("Add", graph.op("Unsqueeze", starts, graph.ints(1)), taps)
        indices = graph.op("Min", indices, graph.op("Sub", rows, graph.ints(1)))
        return graph.op("Reshape", indices, graph.ints(-1))

    def apply(self, body: Graph, x: str, weights: Weights) -> str:
        """Map rows (time, channel) to the layer's output rows."""
        name = f"{AUDIO}local_encoder.conv_layers.{self._index}"
        own = f"conv{self._index}"
        if self._cut:
            x = body.slice(x, body.ints(0), self._cut)
        x = self._convolve(body, x, own, weights[name + ".0.weight"])
        x = layer_norm(body, x, own + ".norm", 1e-5, weights, name + ".2.1")
        return body.op("Gelu", x)

    def _convolve(self, body: Graph, x: str, name: str, weight: NDArray[np.float32]) -> str:
        matrix = weight.transpose(2, 1, 0).reshape(-1, weight.shape[0])  # (tap and channel, channel out)
        sources = ((x, self._group), (body.op("Gather", x, self._taps) if self._beyond else "", self._beyond))
        parts = [body.op("Reshape", rows, body.ints(-1, taps * self._channels)) for rows, taps in sources if taps]
        rows = parts[0] if len(parts) == 1 else body.op("Concat", *parts, axis=1)
        return body.op("MatMul", rows, body.weight(name, matrix))
