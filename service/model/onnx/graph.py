"""Write an emotion2vec encoder as an ONNX graph for ONNX Runtime on the CPU.

The graph is built rather than exported, to control its cost in time and memory. Front end and attention run in chunks
that fit the caches, so that memory grows with the length of a clip and not with its square.

A run takes one or more clips, laid out by `service.model.onnx.inputs`. Outputs are `features` (token, width) and
`logits` (token, label), of the extra tokens too. Source of the arithmetic: FunASR, `funasr/models/emotion2vec`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.model.config import LOWEST_BIAS, ModelConfig, alibi_slopes
from service.model.onnx.front_end import front_end
from service.model.onnx.int8 import InputMeans
from service.model.onnx.linear import linear
from service.model.onnx.operators import AUDIO, MICROSOFT, Graph, Weights, layer_norm

OPSET = 20

EMBED_LIMIT = 64 * 2**20
"""Bytes of weights up to which they are stored inside the graph's file."""


def build(config: ModelConfig, weights: Weights, means: InputMeans | None = None) -> onnx.ModelProto:
    """Build the graph of an encoder and its head.

    Args:
        config: the dimensions.
        weights: float32 by checkpoint name without `d2v_model.`, as `model.network.encoder.expected_shapes` lists them.
        means: None for FP32. For INT8 the mean inputs of the transformer's linear layers, as
            `model.network.input_means` measures them. Their products, three quarters of all operations, are then
            computed in bytes. The front end, the positional convolutions, attention itself and the head stay in FP32:
            in bytes, the front end alone changes scores of the embedded model by up to 0.03, ten times as much.
    """
    graph = Graph()
    x = front_end(graph, config, weights)
    x = _positions(graph, config, weights, x)
    if config.num_extra_tokens:
        x = graph.op("Concat", graph.weight("extra_tokens", weights[AUDIO + "extra_tokens"][0]), x, axis=0)
    x = graph.op("Gather", x, "tokens")
    x = layer_norm(graph, x, "context.norm", config.norm_eps, weights, AUDIO + "context_encoder.norm")
    blocks = [f"{AUDIO}context_encoder.blocks.{i}" for i in range(config.prenet_depth)]
    blocks += [f"blocks.{i}" for i in range(config.depth)]
    slopes = _scaled_slopes(config, weights)
    tokens = _Tokens(graph)
    for index, name in enumerate(blocks):
        x = _block(graph, means, tokens, config, weights, x, name, slopes[index])
    graph.nodes.append(helper.make_node("Identity", [x], ["features"]))
    head = [graph.weight("head", weights["proj.weight"].T), graph.weight("head.bias", weights["proj.bias"])]
    graph.nodes.append(helper.make_node("Gemm", [x, *head], ["logits"]))
    return _model(graph, config, labels=weights["proj.bias"].shape[0])


def write_onnx(config: ModelConfig, weights: Weights, path: Path, means: InputMeans | None = None) -> None:
    """Write the graph to `path`; weights of more than `EMBED_LIMIT` go to `<path>.data`, which can be memory-mapped."""
    model = build(config, weights, means)
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EMBED_LIMIT
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # onnx appends to an existing file
    onnx.save(model, path, save_as_external_data=external, location=data.name, size_threshold=4096)


def _model(graph: Graph, config: ModelConfig, labels: int) -> onnx.ModelProto:
    proto = helper.make_graph(
        graph.nodes,
        "emotion2vec",
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["samples"]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["tokens"]),
            helper.make_tensor_value_info("places", TensorProto.FLOAT, ["tokens"]),
            helper.make_tensor_value_info("plan", TensorProto.INT64, ["clips", 5]),
        ],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["tokens", config.embed_dim]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["tokens", labels]),
        ],
        list(graph.initializers.values()),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=10, producer_name="emotion2vec-service")


def _positions(graph: Graph, config: ModelConfig, weights: Weights, x: str) -> str:
    """Add the output of the positional convolutions to the `rows` of `x` (frame, width).

    Rows between clips are zeroed before each convolution, like the padding around a single clip.
    """
    count = graph.length(x)
    x = graph.op("Concat", x, graph.weight("no_row", np.zeros((1, config.embed_dim), np.float32)), axis=0)
    x = graph.op("Gather", x, "rows")
    is_frame = graph.op("Cast", graph.op("Less", "rows", count), to=TensorProto.FLOAT)
    is_frame = graph.op("Unsqueeze", is_frame, graph.ints(1))
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
        y = graph.op("Mul", graph.op("Gelu", y), is_frame)
    return graph.op("Add", x, y)


def _scaled_slopes(config: ModelConfig, weights: Weights) -> NDArray[np.float32]:
    """ALiBi slopes times their learned scales, shape (block, head)."""
    scale = weights[AUDIO + "alibi_scale"]
    scale = np.maximum(scale.reshape(scale.shape[0], -1), 0)
    slopes = np.array(alibi_slopes(config.num_heads), np.float32)
    return np.broadcast_to(scale * slopes, (config.blocks, config.num_heads))


class _Tokens:
    """Values that all transformer blocks share: the number of clips, and which tokens are frames."""

    def __init__(self, graph: Graph) -> None:
        self.clips = graph.length("plan")
        self.is_single = graph.op("Equal", graph.op("Squeeze", self.clips), graph.scalar(1))
        # The bias is zero for pairs with an extra token, as if their distance were zero.
        zero = graph.weight("zero", np.array(0, np.float32))
        self.is_frame = graph.op("Cast", graph.op("GreaterOrEqual", "places", zero), to=TensorProto.FLOAT)


def _block(
    graph: Graph,
    means: InputMeans | None,
    tokens: _Tokens,
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
    qkv = linear(graph, means, x, name + ".attn.qkv", weights[name + ".attn.qkv.weight"].T * scale, bias)
    qkv = graph.op("Reshape", qkv, graph.ints(-1, 3, heads, size))
    qkv = graph.op("Transpose", qkv, perm=[1, 2, 0, 3])
    parts = graph.ops("Split", qkv, outputs=3, axis=0, num_outputs=3)
    q, k, v = (graph.op("Squeeze", part, graph.ints(0)) for part in parts)
    y = _attention(graph, tokens, q, k, v, name, slopes)
    y = graph.op("Reshape", graph.op("Transpose", y, perm=[1, 0, 2]), graph.ints(-1, width))
    y = linear(
        graph, means, y, name + ".attn.proj", weights[name + ".attn.proj.weight"].T, weights[name + ".attn.proj.bias"]
    )
    x = layer_norm(graph, graph.op("Add", x, y), name + ".norm1", config.norm_eps, weights, name + ".norm1")
    fc1 = weights[name + ".mlp.fc1.weight"].T, weights[name + ".mlp.fc1.bias"]
    y = linear(graph, means, x, name + ".mlp.fc1", *fc1, gelu=True)
    y = linear(graph, means, y, name + ".mlp.fc2", weights[name + ".mlp.fc2.weight"].T, weights[name + ".mlp.fc2.bias"])
    return layer_norm(graph, graph.op("Add", x, y), name + ".norm2", config.norm_eps, weights, name + ".norm2")


def _attention(graph: Graph, tokens: _Tokens, q: str, k: str, v: str, name: str, slopes: NDArray[np.float32]) -> str:
    """Attention over (head, token, size), clip by clip, in the same shapes as for a single clip."""
    slope = graph.weight(f"{name}.slopes", -slopes.reshape(-1, 1, 1))

    def single(body: Graph) -> str:
        plan = body.op("Gather", "plan", body.scalar(0))
        return _attend(body, plan, q, k, v, "places", tokens.is_frame, name, slope)

    def clip_by_clip(body: Graph) -> str:
        def clip(inner: Graph, index: str) -> str:
            plan = inner.op("Gather", "plan", index)
            start, end = (
                inner.slice(plan, inner.ints(0), inner.ints(1)),
                inner.slice(plan, inner.ints(1), inner.ints(2)),
            )
            queries, keys, values = (inner.slice(x, start, end, axis=1) for x in (q, k, v))
            places, is_frame = (inner.slice(x, start, end) for x in ("places", tokens.is_frame))
            return _attend(inner, plan, queries, keys, values, places, is_frame, f"{name}.clip", slope)

        empty = body.slice(v, body.ints(0), body.ints(0), axis=1)
        return body.loop_concat(tokens.clips, f"{name}.clips", clip, empty, axis=1)

    return graph.branch(tokens.is_single, name, single, clip_by_clip)  # a single clip needs no slices


def _attend(graph: Graph, plan: str, q: str, k: str, v: str, places: str, is_frame: str, name: str, slope: str) -> str:
    """Attention with symmetric ALiBi over the tokens of one clip, one block of queries at a time."""
    _, _, size, steps, padding = graph.ops("Split", plan, outputs=5, axis=0, num_outputs=5)
    queries = graph.pad_end(q, padding, axis=1, rank=3)
    rows, row_is_frame = (
        graph.op("Unsqueeze", graph.pad_end(x, padding, axis=0, rank=1), graph.ints(1)) for x in (places, is_frame)
    )
    lowest = graph.weight("lowest_bias", np.array(LOWEST_BIAS, np.float32))

    def block(body: Graph, step: str) -> str:
        start = body.op("Mul", step, size)
        end = body.op("Add", start, size)
        scores = body.op("FusedMatMul", body.slice(queries, start, end, axis=1), k, domain=MICROSOFT, transB=1)
        distance = body.op("Abs", body.op("Sub", body.slice(rows, start, end), places))
        distance = body.op("Mul", distance, body.slice(row_is_frame, start, end))
        distance = body.op("Mul", distance, is_frame)
        bias = body.op("Clip", body.op("Mul", distance, slope), lowest)
        return body.op("MatMul", body.op("Softmax", body.op("Add", scores, bias), axis=-1), v)

    y = graph.loop(steps, f"{name}.attention", block)  # (step, head, query, size)
    y = graph.op("Transpose", y, perm=[1, 0, 2, 3])
    heads, width = graph.op("Shape", v, start=0, end=1), graph.op("Shape", v, start=2)
    y = graph.op("Reshape", y, graph.op("Concat", heads, graph.ints(-1), width, axis=0))
    return graph.slice(y, graph.ints(0), graph.op("Shape", v, start=1, end=2), axis=1)
