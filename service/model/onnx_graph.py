"""Write an emotion2vec encoder as an ONNX graph for ONNX Runtime on the CPU.

The graph is built by hand rather than exported, to control what costs time and memory. The front end stays
channels-last: its convolutions are matrix products over neighbouring frames, and no transposition stands between them
and their layer norms. Front end and attention run in stretches that fit the caches, so that memory grows with the
length of a clip and not with its square.

One clip a run: `waveform` (time,) float32 at 16 kHz, normalised; answers `features` (frame, width) and `logits`
(frame, label). Source of the arithmetic: FunASR, `funasr/models/emotion2vec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.model.config import LOWEST_BIAS, ConvLayer, ModelConfig, alibi_slopes

Precision = Literal["fp32", "int8"]
Weights = Mapping[str, NDArray[np.float32]]

AUDIO = "modality_encoders.AUDIO."
OPSET = 20
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators: fused bias and activation, transposed products

ATTENTION_ELEMENTS = 524_288
"""Attention scores held at once, over all heads: 2 MiB, which stay in the cores' own caches."""
MIN_QUERIES = 64
"""Queries a block at least: fewer would starve the matrix product."""
FRONT_END_FRAMES = 32
"""Frames that the front end makes at a time: the second layer's input is then 4 MiB."""
EMBED_LIMIT = 64 * 2**20
"""Bytes up to which the weights are kept inside the graph's file."""
_END = 2**62
"""Stands for the end of an axis in a slice."""


class _Graph:
    """Collects nodes; `op` returns the name of its output. Weights belong to the outermost graph."""

    def __init__(self, prefix: str = "", outer: _Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = outer.initializers if outer else {}
        self._prefix = prefix
        self._count = 0

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        self._count += 1
        names = [f"{self._prefix}{kind}_{self._count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], domain=domain, **attributes))
        return names

    def weight(self, name: str, values: NDArray[Any]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(values.copy(order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        return self.weight("ints_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        return self.weight(f"int_{value}", np.array(value, np.int64))

    def length(self, x: str) -> str:
        """Rows of `x`, a one-element int64 tensor as all lengths here."""
        return self.op("Shape", x, start=0, end=1)

    def ceil_div(self, a: str, b: str) -> str:
        return self.op("Div", self.op("Sub", self.op("Add", a, b), self.ints(1)), b)

    def slice(self, x: str, start: str, end: str, axis: int = 0, step: int = 1) -> str:
        return self.op("Slice", x, start, end, self.ints(axis), self.ints(step))

    def pad_end(self, x: str, count: str, axis: int, rank: int) -> str:
        """Zeros behind `x` along one axis."""
        zeros = [self.ints(*[0] * n) for n in (rank + axis, rank - axis - 1) if n]
        return self.op("Pad", x, self.op("Concat", *zeros[:1], count, *zeros[1:], axis=0))

    def loop(self, steps: str, name: str, body: Callable[[_Graph, str], str]) -> str:
        """Run `body(graph, step)` for each step, and stack what it returns along a new first axis."""
        inner = _Graph(prefix=f"{name}.", outer=self)
        result = body(inner, f"{name}.step")
        more = inner.op("Identity", f"{name}.more")
        inputs = [
            helper.make_tensor_value_info(f"{name}.step", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{name}.more", TensorProto.BOOL, []),
        ]
        outputs = [
            helper.make_tensor_value_info(more, TensorProto.BOOL, []),
            helper.make_tensor_value_info(result, TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(inner.nodes, name, inputs, outputs)
        count = self.op("Squeeze", steps)
        return self.op("Loop", count, self.weight("true", np.array(True)), body=graph)


def _linear(
    graph: _Graph,
    precision: Precision,
    x: str,
    name: str,
    matrix: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
) -> str:
    """`x` (row, in) times a constant `matrix` (in, out), plus `bias` (out,).

    `int8` stores the matrix as signed bytes with one scale an output, and brings `x` to unsigned bytes at run time.
    """
    if precision == "fp32":
        weight = graph.weight(name, matrix)
        if bias is None:
            return graph.op("MatMul", x, weight)
        return graph.op("Gemm", x, weight, graph.weight(name + ".bias", bias))
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127
    values = np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8)
    x8, x_scale, x_zero = graph.ops("DynamicQuantizeLinear", x, outputs=3)
    inputs = [x8, graph.weight(name, values), x_scale, graph.weight(name + ".scale", scale.astype(np.float32)), x_zero]
    if bias is not None:
        inputs += ["", graph.weight(name + ".bias", bias)]
    return graph.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)


def build(config: ModelConfig, weights: Weights, precision: Precision = "fp32") -> onnx.ModelProto:
    """The graph of an encoder and its head.

    Args:
        config: the dimensions.
        weights: float32 by checkpoint name without `d2v_model.`, as `service.model.weights` lists them.
        precision: `int8` quantises the transformer's products with weights, three quarters of the work; the front
            end, the positions, attention itself and the head stay in FP32, where bytes would cost labels.
    """
    graph = _Graph()
    x = _front_end(graph, config, weights)
    x = _positions(graph, config, weights, x)
    extra = config.num_extra_tokens
    if extra:
        tokens = graph.weight("extra_tokens", weights[AUDIO + "extra_tokens"][0])
        x = graph.op("Concat", tokens, x, axis=0)
    x = _layer_norm(graph, x, "context.norm", config.norm_eps, weights, AUDIO + "context_encoder.norm")
    blocks = [f"{AUDIO}context_encoder.blocks.{i}" for i in range(config.prenet_depth)]
    blocks += [f"blocks.{i}" for i in range(config.depth)]
    slopes = _scaled_slopes(config, weights)
    plan = _QueryBlocks(graph, config, x)
    for index, name in enumerate(blocks):
        x = _block(graph, precision, plan, config, weights, x, name, slopes[index])
    features = graph.slice(x, graph.ints(extra), graph.ints(_END))
    graph.nodes.append(helper.make_node("Identity", [features], ["features"]))
    head = [graph.weight("head", weights["proj.weight"].T), graph.weight("head.bias", weights["proj.bias"])]
    graph.nodes.append(helper.make_node("Gemm", [features, *head], ["logits"]))
    return _model(graph, config, labels=weights["proj.bias"].shape[0])


def write_onnx(config: ModelConfig, weights: Weights, path: Path, precision: Precision = "fp32") -> None:
    """Write `build(...)` to `path`; weights of more than 64 MiB go to `<path>.data` beside it, to be memory-mapped."""
    model = build(config, weights, precision)
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EMBED_LIMIT
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # onnx appends to what is there
    onnx.save(model, path, save_as_external_data=external, location=data.name, size_threshold=4096)


def _model(graph: _Graph, config: ModelConfig, labels: int) -> onnx.ModelProto:
    proto = helper.make_graph(
        graph.nodes,
        "emotion2vec",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["samples"])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["frames", config.embed_dim]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["frames", labels]),
        ],
        list(graph.initializers.values()),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=10, producer_name="emotion2vec-service")


def _layer_norm(graph: _Graph, x: str, name: str, eps: float, weights: Weights, prefix: str) -> str:
    gamma, beta = (graph.weight(f"{name}.{part}", weights[f"{prefix}.{part}"]) for part in ("weight", "bias"))
    return graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=eps)


def _front_end(graph: _Graph, config: ModelConfig, weights: Weights) -> str:
    """Waveform (time,) to projected features (frame, width), a stretch of frames at a time.

    The first layers make 64 rows of 512 channels for each frame; a stretch keeps them in the caches.
    """
    first = config.samples(1)
    hop = config.samples(2) - first
    time = graph.length("waveform")
    frames = graph.op("Add", graph.op("Div", graph.op("Sub", time, graph.ints(first)), graph.ints(hop)), graph.ints(1))
    steps = graph.ceil_div(frames, graph.ints(FRONT_END_FRAMES))
    size = graph.ceil_div(frames, steps)
    stride = graph.op("Mul", size, graph.ints(hop))
    window = graph.op("Add", stride, graph.ints(first - hop))
    needed = graph.op("Add", graph.op("Mul", stride, steps), graph.ints(first - hop))
    missing = graph.op("Max", graph.op("Sub", needed, time), graph.ints(0))
    waveform = graph.op("Unsqueeze", graph.pad_end("waveform", missing, axis=0, rank=1), graph.ints(1))

    def stretch(body: _Graph, step: str) -> str:
        begin = body.op("Mul", step, stride)
        x = body.slice(waveform, begin, body.op("Add", begin, window))
        for index, layer in enumerate(config.conv_layers):
            name = f"{AUDIO}local_encoder.conv_layers.{index}"
            x = _convolution(body, x, layer, f"conv{index}", weights[name + ".0.weight"])
            x = _layer_norm(body, x, f"conv{index}.norm", 1e-5, weights, name + ".2.1")
            x = body.op("Gelu", x)
        x = _layer_norm(body, x, "project.norm", 1e-5, weights, AUDIO + "project_features.1")
        name = AUDIO + "project_features.2"
        return _linear(body, "fp32", x, "project", weights[name + ".weight"].T, weights[name + ".bias"])

    x = graph.loop(steps, "front_end", stretch)  # (step, frame, width)
    x = graph.op("Reshape", x, graph.ints(-1, config.embed_dim))
    return graph.slice(x, graph.ints(0), frames)


def _convolution(graph: _Graph, x: str, layer: ConvLayer, name: str, weight: NDArray[np.float32]) -> str:
    """A strided convolution without padding over the rows of `x` (time, channel), as one matrix product.

    Row t of the product's input is the `kernel` rows of `x` from `t * stride` on, side by side. They are put together
    from whole strides: `x` seen as (time / stride, stride * channel) from row 0, from row `stride`, and so on.
    """
    out, channels, kernel = weight.shape
    matrix = weight.transpose(2, 1, 0).reshape(kernel * channels, out)
    rows = graph.op("Sub", graph.length(x), graph.ints(kernel - layer.stride))
    rows = graph.op("Div", rows, graph.ints(layer.stride))
    parts = []
    for tap in range(0, kernel, layer.stride):
        width = min(layer.stride, kernel - tap)
        if width == layer.stride:
            end = graph.op("Add", graph.op("Mul", rows, graph.ints(layer.stride)), graph.ints(tap))
            part = graph.slice(x, graph.ints(tap), end)
            parts.append(graph.op("Reshape", part, graph.ints(-1, width * channels)))
        else:
            parts += [graph.slice(x, graph.ints(tap + i), graph.ints(_END), step=layer.stride) for i in range(width)]
    return _linear(graph, "fp32", parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1), name, matrix)


def _positions(graph: _Graph, config: ModelConfig, weights: Weights, x: str) -> str:
    """Add the output of the grouped convolutions over time to `x` (frame, width)."""
    kernel, width = config.conv_pos_kernel, config.embed_dim
    ones = graph.weight("ones", np.ones(width, np.float32))
    zeros = graph.weight("zeros", np.zeros(width, np.float32))
    y = x
    for index in range(config.conv_pos_depth):
        name = f"{AUDIO}relative_positional_encoder.{index + 1}.0"
        y = graph.op("Unsqueeze", graph.op("Transpose", y, perm=[1, 0]), graph.ints(0))
        y = graph.op(
            "Conv",
            y,
            graph.weight(f"position{index}", weights[name + ".weight"]),
            graph.weight(f"position{index}.bias", weights[name + ".bias"]),
            group=config.conv_pos_groups,
            kernel_shape=[kernel],
            pads=[kernel // 2, (kernel - 1) // 2],
        )
        y = graph.op("Transpose", graph.op("Squeeze", y, graph.ints(0)), perm=[1, 0])
        y = graph.op("LayerNormalization", y, ones, zeros, axis=-1, epsilon=1e-5)
        y = graph.op("Gelu", y)
    return graph.op("Add", x, y)


def _scaled_slopes(config: ModelConfig, weights: Weights) -> NDArray[np.float32]:
    """ALiBi slopes times their learned scales, shape (block, head)."""
    scale = weights[AUDIO + "alibi_scale"]
    scale = np.maximum(scale.reshape(scale.shape[0], -1), 0)
    slopes = np.array(alibi_slopes(config.num_heads), np.float32)
    return np.broadcast_to(scale * slopes, (config.blocks, config.num_heads))


class _QueryBlocks:
    """Shared by all blocks of the transformer: how many queries a step, and the distances between positions."""

    def __init__(self, graph: _Graph, config: ModelConfig, x: str) -> None:
        self.tokens = graph.length(x)
        most = graph.op("Div", graph.ints(ATTENTION_ELEMENTS // config.num_heads), self.tokens)
        most = graph.op("Max", most, graph.ints(MIN_QUERIES))
        self.steps = graph.ceil_div(self.tokens, most)
        self.size = graph.ceil_div(self.tokens, self.steps)
        self.padding = graph.op("Sub", graph.op("Mul", self.size, self.steps), self.tokens)
        index = graph.op("Range", graph.scalar(0), graph.op("Squeeze", self.tokens), graph.scalar(1))
        keys = graph.op("Cast", index, to=TensorProto.FLOAT)
        # Extra tokens are at no distance from anything: their rows and columns of the bias are zero.
        first = graph.weight("first_frame", np.array([config.num_extra_tokens], np.float32))
        is_frame = graph.op("Cast", graph.op("GreaterOrEqual", keys, first), to=TensorProto.FLOAT)
        self.keys, self.key_is_frame = keys, is_frame
        self.queries, self.query_is_frame = (
            graph.op("Unsqueeze", graph.pad_end(x, self.padding, axis=0, rank=1), graph.ints(1))
            for x in (keys, is_frame)
        )

    def distances(self, graph: _Graph, start: str, end: str) -> str:
        """Frames between the queries from `start` to `end` and every key, (query, key)."""
        distance = graph.op("Abs", graph.op("Sub", graph.slice(self.queries, start, end), self.keys))
        distance = graph.op("Mul", distance, graph.slice(self.query_is_frame, start, end))
        return graph.op("Mul", distance, self.key_is_frame)


def _block(
    graph: _Graph,
    precision: Precision,
    plan: _QueryBlocks,
    config: ModelConfig,
    weights: Weights,
    x: str,
    name: str,
    slopes: NDArray[np.float32],
) -> str:
    """One post-norm transformer block on `x` (token, width)."""
    heads, width = config.num_heads, config.embed_dim
    size = width // heads
    # The scale of the queries is folded into their weights (a power of two for heads of 64, so exact).
    scale = np.ones(3 * width, np.float32)
    scale[:width] = size**-0.5
    bias = weights[name + ".attn.qkv.bias"] * scale
    qkv = _linear(graph, precision, x, name + ".qkv", weights[name + ".attn.qkv.weight"].T * scale, bias)
    qkv = graph.op("Reshape", qkv, graph.ints(-1, 3, heads, size))
    qkv = graph.op("Transpose", qkv, perm=[1, 2, 0, 3])
    parts = graph.ops("Split", qkv, outputs=3, axis=0, num_outputs=3)
    q, k, v = (graph.op("Squeeze", part, graph.ints(0)) for part in parts)
    y = _attention(graph, plan, q, k, v, name, slopes)
    y = graph.op("Reshape", graph.op("Transpose", y, perm=[1, 0, 2]), graph.ints(-1, width))
    y = _linear(
        graph, precision, y, name + ".proj", weights[name + ".attn.proj.weight"].T, weights[name + ".attn.proj.bias"]
    )
    x = _layer_norm(graph, graph.op("Add", x, y), name + ".norm1", config.norm_eps, weights, name + ".norm1")
    y = _linear(graph, precision, x, name + ".fc1", weights[name + ".mlp.fc1.weight"].T)
    y = graph.op("BiasGelu", y, graph.weight(name + ".fc1.bias", weights[name + ".mlp.fc1.bias"]), domain=MICROSOFT)
    y = _linear(
        graph, precision, y, name + ".fc2", weights[name + ".mlp.fc2.weight"].T, weights[name + ".mlp.fc2.bias"]
    )
    return _layer_norm(graph, graph.op("Add", x, y), name + ".norm2", config.norm_eps, weights, name + ".norm2")


def _attention(
    graph: _Graph, plan: _QueryBlocks, q: str, k: str, v: str, name: str, slopes: NDArray[np.float32]
) -> str:
    """Attention with symmetric ALiBi over (head, token, size), in a loop over blocks of queries."""
    slope = graph.weight(f"{name}.slopes", -slopes.reshape(-1, 1, 1))
    lowest = graph.weight("lowest_bias", np.array(LOWEST_BIAS, np.float32))
    padded = graph.pad_end(q, plan.padding, axis=1, rank=3)

    def queries(body: _Graph, step: str) -> str:
        start = body.op("Mul", step, plan.size)
        end = body.op("Add", start, plan.size)
        scores = body.op("FusedMatMul", body.slice(padded, start, end, axis=1), k, domain=MICROSOFT, transB=1)
        bias = body.op("Clip", body.op("Mul", plan.distances(body, start, end), slope), lowest)
        return body.op("MatMul", body.op("Softmax", body.op("Add", scores, bias), axis=-1), v)

    y = graph.loop(plan.steps, f"{name}.attention", queries)  # (step, head, query, size)
    shape = graph.op("Concat", graph.ints(slopes.shape[0], -1), graph.op("Shape", v, start=2), axis=0)
    y = graph.op("Reshape", graph.op("Transpose", y, perm=[1, 0, 2, 3]), shape)
    return graph.slice(y, graph.ints(0), plan.tokens, axis=1)
