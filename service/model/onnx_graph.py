"""Write an emotion2vec encoder as an ONNX graph for ONNX Runtime on the CPU.

The graph is built by hand rather than exported, to control what costs time and memory. Front end and attention run in
stretches that fit the caches, so that memory grows with the length of a clip and not with its square.

One or more clips a run, laid out by `service.model.onnx_inputs`; answers `features` (token, width) and `logits`
(token, label), of the extra tokens too. Source of the arithmetic: FunASR, `funasr/models/emotion2vec`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.model.config import LOWEST_BIAS, ModelConfig, alibi_slopes
from service.model.onnx_front_end import front_end
from service.model.onnx_ops import AUDIO, MICROSOFT, Graph, Precision, Weights, layer_norm, linear

OPSET = 20

ATTENTION_ELEMENTS = 524_288
"""Attention scores held at once, over all heads: 2 MiB, which stay in the cores' own caches."""
MIN_QUERIES = 64
"""Queries a block at least: fewer would starve the matrix product."""
LEAST_SLOPE = np.float32(1e-25)
"""Stands for a slope of zero: within a clip it changes no score, and times `onnx_inputs.APART` it is out of reach."""
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
    if config.num_extra_tokens:
        x = graph.op("Concat", graph.weight("extra_tokens", weights[AUDIO + "extra_tokens"][0]), x, axis=0)
    x = graph.op("Gather", x, "tokens")
    x = layer_norm(graph, x, "context.norm", config.norm_eps, weights, AUDIO + "context_encoder.norm")
    blocks = [f"{AUDIO}context_encoder.blocks.{i}" for i in range(config.prenet_depth)]
    blocks += [f"blocks.{i}" for i in range(config.depth)]
    slopes = _scaled_slopes(config, weights)
    plan = _QueryBlocks(graph, config)
    for index, name in enumerate(blocks):
        x = _block(graph, precision, plan, config, weights, x, name, slopes[index])
    graph.nodes.append(helper.make_node("Identity", [x], ["features"]))
    head = [graph.weight("head", weights["proj.weight"].T), graph.weight("head.bias", weights["proj.bias"])]
    graph.nodes.append(helper.make_node("Gemm", [x, *head], ["logits"]))
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
        [
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["samples"]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["tokens"]),
            helper.make_tensor_value_info("places", TensorProto.FLOAT, ["tokens"]),
            helper.make_tensor_value_info("owners", TensorProto.FLOAT, ["tokens"]),
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
    """Add the output of the grouped convolutions over time to the `rows` of `x` (frame, width).

    What lies between clips is zero for each of the convolutions, as what lies before and behind a single clip is.
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
    """ALiBi slopes times their learned scales, shape (block, head); with none of zero, clips of a run see no others."""
    scale = weights[AUDIO + "alibi_scale"]
    scale = np.maximum(scale.reshape(scale.shape[0], -1), 0)
    slopes = np.array(alibi_slopes(config.num_heads), np.float32)
    return np.broadcast_to(np.maximum(scale * slopes, LEAST_SLOPE), (config.blocks, config.num_heads))


class _QueryBlocks:
    """Shared by all blocks of the transformer: how many queries a step, and the distances between positions."""

    def __init__(self, graph: Graph, config: ModelConfig) -> None:
        self.tokens = graph.length("places")
        most = graph.op("Div", graph.ints(ATTENTION_ELEMENTS // config.num_heads), self.tokens)
        most = graph.op("Max", most, graph.ints(MIN_QUERIES))
        self.steps = graph.ceil_div(self.tokens, most)
        self.size = graph.ceil_div(self.tokens, self.steps)
        self.padding = graph.op("Sub", graph.op("Mul", self.size, self.steps), self.tokens)
        # Extra tokens are at no distance from any token of their clip: their rows and columns of the bias are zero.
        zero = graph.weight("zero", np.array(0, np.float32))
        is_frame = graph.op("Cast", graph.op("GreaterOrEqual", "places", zero), to=TensorProto.FLOAT)
        self.key_is_frame = is_frame
        self.places, self.query_is_frame, self.owners = (
            graph.op("Unsqueeze", graph.pad_end(x, self.padding, axis=0, rank=1), graph.ints(1))
            for x in ("places", is_frame, "owners")
        )

    def distances(self, graph: Graph, start: str, end: str) -> str:
        """Frames between the queries from `start` to `end` and every key, (query, key); more than any between clips."""
        distance = self._difference(graph, self.places, "places", start, end)
        distance = graph.op("Mul", distance, graph.slice(self.query_is_frame, start, end))
        distance = graph.op("Mul", distance, self.key_is_frame)
        return graph.op("Max", distance, self._difference(graph, self.owners, "owners", start, end))

    @staticmethod
    def _difference(graph: Graph, queries: str, keys: str, start: str, end: str) -> str:
        return graph.op("Abs", graph.op("Sub", graph.slice(queries, start, end), keys))


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
