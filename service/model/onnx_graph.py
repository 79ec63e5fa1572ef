"""Write an emotion2vec encoder as an ONNX graph for ONNX Runtime on the CPU.

The graph is built by hand rather than exported, to control what costs time and memory. Front end and attention run in
stretches that fit the caches, so that memory grows with the length of a clip and not with its square.

One clip a run: `waveform` (time,) float32 at 16 kHz, normalised; answers `features` (frame, width) and `logits`
(frame, label). Source of the arithmetic: FunASR, `funasr/models/emotion2vec`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.model.config import LOWEST_BIAS, ModelConfig, alibi_slopes
from service.model.onnx_front_end import front_end
from service.model.onnx_ops import AUDIO, END, MICROSOFT, Graph, Precision, Weights, layer_norm, linear

OPSET = 20

ATTENTION_ELEMENTS = 524_288
"""Attention scores held at once, over all heads: 2 MiB, which stay in the cores' own caches."""
MIN_QUERIES = 64
"""Queries a block at least: fewer would starve the matrix product."""
EMBED_LIMIT = 64 * 2**20
"""Bytes up to which the weights are kept inside the graph's file."""


def build(config: ModelConfig, weights: Weights, precision: Precision = "fp32") -> onnx.ModelProto:
    """The graph of an encoder and its head.

    Args:
        config: the dimensions.
        weights: float32 by checkpoint name without `d2v_model.`, as `service.model.weights` lists them.
        precision: `int8` quantises the transformer's products with weights, three quarters of the work; the front
            end, the positions, attention itself and the head stay in FP32, where bytes would cost labels.
    """
    graph = Graph()
    x = front_end(graph, config, weights)
    x = _positions(graph, config, weights, x)
    extra = config.num_extra_tokens
    if extra:
        tokens = graph.weight("extra_tokens", weights[AUDIO + "extra_tokens"][0])
        x = graph.op("Concat", tokens, x, axis=0)
    x = layer_norm(graph, x, "context.norm", config.norm_eps, weights, AUDIO + "context_encoder.norm")
    blocks = [f"{AUDIO}context_encoder.blocks.{i}" for i in range(config.prenet_depth)]
    blocks += [f"blocks.{i}" for i in range(config.depth)]
    slopes = _scaled_slopes(config, weights)
    plan = _QueryBlocks(graph, config, x)
    for index, name in enumerate(blocks):
        x = _block(graph, precision, plan, config, weights, x, name, slopes[index])
    features = graph.slice(x, graph.ints(extra), graph.ints(END))
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


def _model(graph: Graph, config: ModelConfig, labels: int) -> onnx.ModelProto:
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


def _positions(graph: Graph, config: ModelConfig, weights: Weights, x: str) -> str:
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

    def __init__(self, graph: Graph, config: ModelConfig, x: str) -> None:
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

    def distances(self, graph: Graph, start: str, end: str) -> str:
        """Frames between the queries from `start` to `end` and every key, (query, key)."""
        distance = graph.op("Abs", graph.op("Sub", graph.slice(self.queries, start, end), self.keys))
        distance = graph.op("Mul", distance, graph.slice(self.query_is_frame, start, end))
        return graph.op("Mul", distance, self.key_is_frame)


def _block(
    graph: Graph,
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
    qkv = linear(graph, precision, x, name + ".qkv", weights[name + ".attn.qkv.weight"].T * scale, bias)
    qkv = graph.op("Reshape", qkv, graph.ints(-1, 3, heads, size))
    qkv = graph.op("Transpose", qkv, perm=[1, 2, 0, 3])
    parts = graph.ops("Split", qkv, outputs=3, axis=0, num_outputs=3)
    q, k, v = (graph.op("Squeeze", part, graph.ints(0)) for part in parts)
    y = _attention(graph, plan, q, k, v, name, slopes)
    y = graph.op("Reshape", graph.op("Transpose", y, perm=[1, 0, 2]), graph.ints(-1, width))
    y = linear(
        graph, precision, y, name + ".proj", weights[name + ".attn.proj.weight"].T, weights[name + ".attn.proj.bias"]
    )
    x = layer_norm(graph, graph.op("Add", x, y), name + ".norm1", config.norm_eps, weights, name + ".norm1")
    y = linear(graph, precision, x, name + ".fc1", weights[name + ".mlp.fc1.weight"].T)
    y = graph.op("BiasGelu", y, graph.weight(name + ".fc1.bias", weights[name + ".mlp.fc1.bias"]), domain=MICROSOFT)
    y = linear(graph, precision, y, name + ".fc2", weights[name + ".mlp.fc2.weight"].T, weights[name + ".mlp.fc2.bias"])
    return layer_norm(graph, graph.op("Add", x, y), name + ".norm2", config.norm_eps, weights, name + ".norm2")


def _attention(graph: Graph, plan: _QueryBlocks, q: str, k: str, v: str, name: str, slopes: NDArray[np.float32]) -> str:
    """Attention with symmetric ALiBi over (head, token, size), in a loop over blocks of queries."""
    slope = graph.weight(f"{name}.slopes", -slopes.reshape(-1, 1, 1))
    lowest = graph.weight("lowest_bias", np.array(LOWEST_BIAS, np.float32))
    padded = graph.pad_end(q, plan.padding, axis=1, rank=3)

    def queries(body: Graph, step: str) -> str:
        start = body.op("Mul", step, plan.size)
        end = body.op("Add", start, plan.size)
        scores = body.op("FusedMatMul", body.slice(padded, start, end, axis=1), k, domain=MICROSOFT, transB=1)
        bias = body.op("Clip", body.op("Mul", plan.distances(body, start, end), slope), lowest)
        return body.op("MatMul", body.op("Softmax", body.op("Add", scores, bias), axis=-1), v)

    y = graph.loop(plan.steps, f"{name}.attention", queries)  # (step, head, query, size)
    shape = graph.op("Concat", graph.ints(slopes.shape[0], -1), graph.op("Shape", v, start=2), axis=0)
    y = graph.op("Reshape", graph.op("Transpose", y, perm=[1, 0, 2, 3]), shape)
    return graph.slice(y, graph.ints(0), plan.tokens, axis=1)
