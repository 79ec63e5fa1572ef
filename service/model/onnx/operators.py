"""A small ONNX graph builder, and layers that several parts of the graph use.

The builder of `onnxscript` 0.7 is no substitute: it casts the operands of `com.microsoft` operators' results, whose
types it does not know, and names values uniquely within one graph only, not over nested graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = Mapping[str, NDArray[np.float32]]

AUDIO = "modality_encoders.AUDIO."
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


class Graph:
    """Builds a graph, node by node. Values are referred to by name; constants are stored in the outermost graph.

    Args:
        prefix: of the names of values, which must be unique over all nested graphs.
        outer: the graph whose loop or branch this one is; its values can be used here.
    """

    def __init__(self, prefix: str = "", outer: Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = outer.initializers if outer else {}
        self._prefix = prefix
        self._count = 0

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns their names."""
        self._count += 1
        names = [f"{self._prefix}{kind}_{self._count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes))
        return names

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """A constant, which is stored once for each name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(values.copy(order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """A constant tensor (n,) of integers."""
        return self.weight("ints_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        """A constant integer scalar."""
        return self.weight(f"int_{value}", np.array(value, np.int64))

    def length(self, x: str) -> str:
        """The length of the first axis of `x`: int64 (1,)."""
        return self.op("Shape", x, start=0, end=1)

    def ceil_div(self, a: str, b: str) -> str:
        """`a / b`, rounded up, of integers."""
        return self.op("Div", self.op("Sub", self.op("Add", a, b), self.ints(1)), b)

    def slice(self, x: str, start: str, end: str, axis: int = 0) -> str:
        """A copy of `x` from `start` to `end` along one axis."""
        return self.op("Slice", x, start, end, self.ints(axis), self.ints(1))

    def pad_end(self, x: str, count: str, axis: int, rank: int) -> str:
        """Append `count` zeros to `x`, a tensor of `rank` axes, along one axis."""
        zeros = [self.ints(*[0] * n) for n in (rank + axis, rank - axis - 1) if n]
        return self.op("Pad", x, self.op("Concat", *zeros[:1], count, *zeros[1:], axis=0))

    def loop(self, steps: str, name: str, body: Callable[[Graph, str], str]) -> str:
        """Run `body(graph, step)` for each step, and stack its results along a new first axis."""
        inner = Graph(prefix=f"{name}.", outer=self)
        return self._loop(steps, name, inner, body(inner, f"{name}.step"))

    def loop_concat(self, steps: str, name: str, body: Callable[[Graph, str], str], empty: str, axis: int) -> str:
        """Run `body(graph, step)` for each step, and concatenate its results along an axis.

        `empty` is a tensor of length zero along that axis, to which the first result is appended.
        """
        inner = Graph(prefix=f"{name}.", outer=self)
        so_far = inner.op("Concat", f"{name}.before", body(inner, f"{name}.step"), axis=axis)
        return self._loop(steps, name, inner, so_far, empty)

    def branch(self, condition: str, name: str, yes: Callable[[Graph], str], no: Callable[[Graph], str]) -> str:
        """The result of `yes` if the condition is true, else of `no`; only that one is computed."""
        branches = {}
        for attribute, body in (("then_branch", yes), ("else_branch", no)):
            inner = Graph(prefix=f"{name}.{attribute}.", outer=self)
            result = helper.make_tensor_value_info(body(inner), TensorProto.FLOAT, None)
            branches[attribute] = helper.make_graph(inner.nodes, f"{name}.{attribute}", [], [result])
        return self.op("If", condition, **branches)

    def _loop(self, steps: str, name: str, inner: Graph, result: str, *carried: str) -> str:
        """A loop with one result: a value carried from step to step as `before`, or the stacked values of all steps."""
        more = inner.op("Identity", f"{name}.more")
        inputs = [
            helper.make_tensor_value_info(f"{name}.step", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{name}.more", TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(f"{name}.before", TensorProto.FLOAT, None) for _ in carried),
        ]
        outputs = [
            helper.make_tensor_value_info(more, TensorProto.BOOL, []),
            helper.make_tensor_value_info(result, TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(inner.nodes, name, inputs, outputs)
        count = self.op("Squeeze", steps)
        return self.op("Loop", count, self.weight("true", np.array(True)), *carried, body=graph)


def layer_norm(graph: Graph, x: str, name: str, eps: float, weights: Weights, prefix: str) -> str:
    """Layer norm over the last axis, with the weights `prefix`.weight and `prefix`.bias."""
    gamma, beta = (graph.weight(f"{name}.{part}", weights[f"{prefix}.{part}"]) for part in ("weight", "bias"))
    return graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=eps)
