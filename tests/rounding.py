"""How far float32 results may differ that add up the same terms in another order.

Kernels differ by processor in how they split sums, so a tolerance that was observed on one machine says nothing about
another. These tolerances follow from the arithmetic: rounding a sum of n terms changes it by about sqrt(n) units of
roundoff (Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis"), the layers pass their errors
on, and layer norms keep values at unit size. Mistakes in an algorithm are larger by orders of magnitude; where even
that does not suffice, tests compare in float64.
"""

from __future__ import annotations

import math

import numpy as np

from service.model.config import ModelConfig
from service.results import Floats

UNIT_ROUNDOFF = 2.0**-24
EXACT = 1e-10
"""Absolute tolerance for values of the size of features and logits in float64."""

_LARGEST = 4.0
"""Features have unit variance; hardly any is larger."""


def feature_tolerance(config: ModelConfig, tokens: int) -> float:
    """Absolute tolerance for the features of a clip of `tokens` tokens, extra tokens included."""
    inputs = [1, *(layer.channels for layer in config.conv_layers)]
    sums = [channels * layer.kernel for channels, layer in zip(inputs, config.conv_layers, strict=False)]
    sums += [inputs[-1]]  # the projection to the encoder's width
    sums += [config.conv_pos_kernel * config.embed_dim // config.conv_pos_groups] * config.conv_pos_depth
    head = config.embed_dim // config.num_heads
    sums += [config.embed_dim, head, tokens, config.embed_dim, config.embed_dim, config.mlp_dim] * config.blocks
    return _LARGEST * UNIT_ROUNDOFF * sum(math.sqrt(terms) for terms in sums)


def half_precision_tolerance(config: ModelConfig, unit_roundoff: float) -> float:
    """Absolute tolerance for embeddings of an encoder in half precision, whose sums are in float32.

    Weights and the results of all operations are rounded, at random: 4 roundings for each convolution (weight, product,
    norm, GELU), 15 for each transformer block (4 weights and 11 results).
    """
    convolutions = len(config.conv_layers) + 1 + config.conv_pos_depth
    return _LARGEST * unit_roundoff * math.sqrt(4 * convolutions + 15 * config.blocks)


def logit_tolerance(config: ModelConfig, tokens: int, head: Floats) -> float:
    """The same for the logits: the head (label, width) multiplies the errors of features, which are independent."""
    gain = float(np.linalg.norm(head, axis=1).max())
    return feature_tolerance(config, tokens) * max(gain, 1.0)


def mean_tolerance(frames: int) -> float:
    """Absolute tolerance for a mean of features or logits over frames that is computed in float32."""
    return _LARGEST * UNIT_ROUNDOFF * math.sqrt(frames)


def embedding_tolerance(config: ModelConfig, frames: int) -> float:
    """Absolute tolerance for the embedding of a clip of `frames` frames: errors of the features and of both means."""
    return feature_tolerance(config, frames + config.num_extra_tokens) + 2 * mean_tolerance(frames)


def score_tolerance(config: ModelConfig, frames: int, head: Floats) -> float:
    """Absolute tolerance for the scores of a clip: softmax of mean logits, which at most halves their error."""
    logits = logit_tolerance(config, frames + config.num_extra_tokens, head) + 2 * mean_tolerance(frames)
    return logits / 2


def product_tolerance(x: Floats, weight: Floats, bias: Floats) -> float:
    """Absolute tolerance for `x @ weight.T + bias` in float32, whatever the order of summation."""
    return float(UNIT_ROUNDOFF * (x.shape[-1] + 1) * (np.abs(x) @ np.abs(weight).T + np.abs(bias)).max())
