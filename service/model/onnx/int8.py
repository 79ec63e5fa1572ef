"""Matrix products in bytes whose integers are the same on every processor.

x86 processors without VNNI multiply unsigned and signed bytes two by two, and add both products in 16 bits, where more
than 32767 saturates (instruction `vpmaddubsw`). `quantised` therefore limits the sum of two weights that meet there, so
that every integer fits and all kernels of ONNX Runtime compute the same.

Two measures keep the errors small. Each row of the input has a scale of its own, so that a row's result depends on
nothing else in the batch. And rounding a matrix moves its products by the mean of its inputs times the rounding error,
the same in every frame, so that averaging over frames does not remove it: that product is subtracted from the bias
("bias correction", Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction").
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from service.model.onnx.operators import MICROSOFT, Graph

InputMeans = Mapping[str, NDArray[np.float32]]
"""The mean input (in,) of each matrix over frames of speech, by the matrix's name in the graph."""

LARGEST = 127
"""Largest magnitude of a weight, and of an input relative to its zero point."""

ZERO_POINT = 128
"""The byte that stands for an input of zero."""

LARGEST_PAIR = 128
"""Largest magnitude of the sum of two neighbouring weights: 255 * 128 fits 16 bits with a sign."""


def quantised(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a matrix to bytes with a scale for each column.

    Args:
        matrix: (in, out).

    Returns:
        Bytes (in, out), at most `LARGEST`, of which two that share a column and the rows 2i and 2i + 1 add up to
        at most `LARGEST_PAIR`; and the scale (out,) to multiply them by.
    """
    rows = matrix.shape[0]
    padded = np.pad(matrix, ((0, rows % 2), (0, 0)))
    first, second = padded[0::2], padded[1::2]
    scale = np.maximum(np.abs(matrix).max(axis=0) / LARGEST, np.abs(first + second).max(axis=0) / LARGEST_PAIR)
    scale = np.maximum(scale, 1e-12).astype(np.float32)
    values = np.clip(np.rint(padded / scale), -LARGEST, LARGEST)
    # Rounding both weights of a pair away from zero can exceed the limit by one.
    first, second = values[0::2], values[1::2]
    excess = np.sign(first + second) * np.maximum(np.abs(first + second) - LARGEST_PAIR, 0)
    larger = np.abs(first) >= np.abs(second)
    values[0::2] -= np.where(larger, excess, 0)
    values[1::2] -= np.where(larger, 0, excess)
    return values[:rows].astype(np.int8), scale


def byte_product(
    graph: Graph, x: str, name: str, matrix: NDArray[np.float32], mean: NDArray[np.float32]
) -> tuple[str, NDArray[np.float32]]:
    """Multiply `x` (row, in) by a constant matrix (in, out) in bytes.

    Args:
        graph: where the nodes are added.
        x: the name of the values to multiply.
        name: of the matrix in the graph.
        matrix: the weights.
        mean: the mean input (in,).

    Returns:
        The name of the product (row, out), and what has to be added to it (out,) so that the mean input has the same
        product as with the exact matrix.
    """
    values, scale = quantised(matrix)
    smallest = graph.weight("int8.smallest", np.array(1e-12, np.float32))
    last = graph.ints(-1)
    high, low = graph.op("ReduceMax", x, last, keepdims=1), graph.op("ReduceMin", x, last, keepdims=1)
    largest = graph.op("Max", high, graph.op("Neg", low), smallest)
    rows = graph.op("Mul", largest, graph.weight("int8.step", np.array(1 / LARGEST, np.float32)))
    steps = graph.op("Squeeze", rows, last)
    zero_points = graph.op(
        "ConstantOfShape", graph.op("Shape", steps), value=numpy_helper.from_array(np.array([ZERO_POINT], np.uint8))
    )
    y = graph.op(
        "MatMulIntegerToFloat",
        graph.op("QuantizeLinear", x, steps, zero_points, axis=0),
        graph.weight(name, values),
        graph.weight("int8.one", np.array(1, np.float32)),
        graph.weight(name + ".scale", scale),
        graph.weight("int8.zero_point", np.array(ZERO_POINT, np.uint8)),
        domain=MICROSOFT,
    )
    return graph.op("Mul", y, rows), mean @ (matrix - values * scale)
