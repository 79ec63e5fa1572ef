"""A linear layer of the graph, in FP32 or in bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.model.onnx.int8 import InputMeans, byte_product
from service.model.onnx.operators import MICROSOFT, Graph


def linear(
    graph: Graph,
    means: InputMeans | None,
    x: str,
    name: str,
    matrix: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    *,
    gelu: bool = False,
) -> str:
    """`x` (row, in) times a constant `matrix` (in, out), plus `bias` (out,), through a GELU if asked for.

    Args:
        graph: where the nodes are added.
        means: None for a product in FP32, else for one in bytes, see `service.model.onnx.int8`.
        x: the name of the values to multiply.
        name: of the matrix in the graph, and in `means`.
        matrix: the weights.
        bias: added to the product.
        gelu: whether the GELU of the sum is returned.
    """
    if means is not None:
        y, correction = byte_product(graph, x, name, matrix, means[name])
        bias = correction if bias is None else bias + correction
    elif bias is not None and not gelu:
        return graph.op("Gemm", x, graph.weight(name, matrix), graph.weight(name + ".bias", bias))
    else:
        y = graph.op("MatMul", x, graph.weight(name, matrix))
    if bias is None:
        return graph.op("Gelu", y) if gelu else y
    kind, domain = ("BiasGelu", MICROSOFT) if gelu else ("Add", "")
    return graph.op(kind, y, graph.weight(name + ".bias", bias), domain=domain)
