"""The dimensions of an emotion2vec encoder, read from a hub's `config.yaml`, which is untrusted input.

Source of the fields' meaning: FunASR, `funasr/models/emotion2vec` (data2vec 2.0's audio modality).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from service.errors import CheckpointInvalid
from service.results import FRAME_HOP, MIN_SAMPLES

T = TypeVar("T")

_CONV_TERM = re.compile(r"\[\((\d{1,5}),(\d{1,3}),(\d{1,3})\)\](?:\*(\d{1,2}))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MAX_LAYERS = 64
_MAX_WIDTH = 16_384

# Fields of `model_conf` of which the encoder implements only one value.
_FIXED: tuple[tuple[str, Any], ...] = (
    ("layer_norm_first", False),
    ("norm_affine", True),
    ("modalities.audio.type", "AUDIO"),
    ("modalities.audio.extractor_mode", "layer_norm"),
    ("modalities.audio.use_alibi_encoder", True),
    ("modalities.audio.learned_alibi", False),
    ("modalities.audio.conv_pos_pre_ln", False),
)
# The largest accepted value of each field of `ModelConfig`; the smallest is one, unless listed below.
_LIMITS = {
    "embed_dim": _MAX_WIDTH,
    "num_heads": 1024,
    "depth": _MAX_LAYERS,
    "prenet_depth": _MAX_LAYERS,
    "mlp_dim": 8 * _MAX_WIDTH,
    "conv_pos_depth": _MAX_LAYERS,
    "conv_pos_kernel": 1024,
    "conv_pos_groups": _MAX_WIDTH,
    "num_extra_tokens": 1024,
}
_MAY_BE_ZERO = {"prenet_depth", "num_extra_tokens"}

LOWEST_BIAS = -60.0
"""Lower bound of the attention bias. Below it, attention weights of distant frames would become denormal numbers, with
which many processors compute far slower; e^-60 is negligible beside 1."""


@dataclass(frozen=True, slots=True)
class ConvLayer:
    """One convolution of the front end.

    Raises:
        CheckpointInvalid: if a value is out of range.
    """

    channels: int
    kernel: int
    stride: int

    def __post_init__(self) -> None:
        if not (0 < self.channels <= _MAX_WIDTH and 0 < self.stride <= self.kernel < 1000):
            raise CheckpointInvalid(f"feature_encoder_spec has an impossible layer: {self}")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The dimensions of an encoder.

    Attributes:
        conv_layers: the convolutions of the front end, first to last.
        embed_dim: width of the transformer, and of an embedding.
        num_heads: attention heads.
        prenet_depth: transformer blocks of the prenet.
        depth: transformer blocks after the prenet.
        mlp_dim: hidden width of each block's MLP.
        conv_pos_depth: positional convolutions, each of kernel `conv_pos_kernel` in `conv_pos_groups` groups.
        num_extra_tokens: learned tokens in front of the frames, dropped at the end.
        norm_eps: epsilon of the transformer's layer norms (the others use 1e-5).
        normalize: whether the waveform is normalised to zero mean and unit variance.
        alibi_scale_per_layer: whether each block has its own scale of the ALiBi bias.
        alibi_scale_per_head: whether each head has its own scale.

    Raises:
        CheckpointInvalid: if a value is out of range; the message names it.
    """

    conv_layers: tuple[ConvLayer, ...]
    embed_dim: int
    num_heads: int
    prenet_depth: int
    depth: int
    mlp_dim: int
    conv_pos_depth: int
    conv_pos_kernel: int
    conv_pos_groups: int
    num_extra_tokens: int
    norm_eps: float
    normalize: bool
    alibi_scale_per_layer: bool
    alibi_scale_per_head: bool

    def __post_init__(self) -> None:
        for name, highest in _LIMITS.items():
            lowest = 0 if name in _MAY_BE_ZERO else 1
            if not lowest <= getattr(self, name) <= highest:
                raise CheckpointInvalid(f"{name} is {getattr(self, name)}; it must be from {lowest} to {highest}")
        if not 1 <= len(self.conv_layers) <= _MAX_LAYERS:
            raise CheckpointInvalid(f"feature_encoder_spec has {len(self.conv_layers)} layers")
        hop = math.prod(layer.stride for layer in self.conv_layers)
        if (hop, self.samples(1)) != (FRAME_HOP, MIN_SAMPLES):
            raise CheckpointInvalid(
                f"feature_encoder_spec makes frames of {self.samples(1)} samples every {hop}; "
                f"only {MIN_SAMPLES} every {FRAME_HOP} are supported"
            )
        for name in ("num_heads", "conv_pos_groups"):
            if self.embed_dim % getattr(self, name):
                raise CheckpointInvalid(f"embed_dim {self.embed_dim} is not divisible by {name} {getattr(self, name)}")
        if not 0 < self.norm_eps < 1:
            raise CheckpointInvalid(f"norm_eps is {self.norm_eps}; it must be above 0 and below 1")

    @property
    def blocks(self) -> int:
        """Transformer blocks, the prenet's included."""
        return self.prenet_depth + self.depth

    def frames(self, samples: int) -> int:
        """Frames that the front end makes of `samples` samples at 16 kHz; it uses no padding."""
        for layer in self.conv_layers:
            samples = (samples - layer.kernel) // layer.stride + 1
        return max(samples, 0)

    def samples(self, frames: int) -> int:
        """The fewest samples at 16 kHz that make `frames` frames; `frames` is at least one."""
        for layer in reversed(self.conv_layers):
            frames = (frames - 1) * layer.stride + layer.kernel
        return frames

    @classmethod
    def from_hub(cls, model_conf: Mapping[str, Any]) -> ModelConfig:
        """Read the section `model_conf` of a hub's `config.yaml`, already parsed into plain values.

        Raises:
            CheckpointInvalid: if a field is missing, has a bad value, or needs a feature that the encoder lacks; the
                message names it.
        """
        for path, needed in _FIXED:
            found = _lookup(model_conf, path)
            if type(found) is not type(needed) or found != needed:
                raise CheckpointInvalid(f"{path} is {found!r:.100}; only {needed!r} is supported")
        supported = model_conf.get("supported_modality")
        if supported not in (None, "AUDIO"):
            raise CheckpointInvalid(f"supported_modality is {supported!r:.100}; only 'AUDIO' is supported")

        audio = _lookup(model_conf, "modalities.audio")
        num_heads, depth = _integer(model_conf, "num_heads"), _integer(model_conf, "depth")
        for path, value in (("num_alibi_heads", num_heads), ("model_depth", depth)):
            if (found := _integer(audio, path)) != value:
                raise CheckpointInvalid(f"modalities.audio.{path} is {found}; only {value} is supported")
        embed_dim = _integer(model_conf, "embed_dim")
        conv_pos_depth = _integer(audio, "conv_pos_depth")
        if conv_pos_depth < 1:
            raise CheckpointInvalid(f"conv_pos_depth is {conv_pos_depth}; it must be at least 1")
        return cls(
            conv_layers=parse_conv_spec(_typed(audio, "feature_encoder_spec", str)),
            embed_dim=embed_dim,
            num_heads=num_heads,
            prenet_depth=_integer(audio, "prenet_depth"),
            depth=depth,
            mlp_dim=int(embed_dim * _number(model_conf, "mlp_ratio")),
            conv_pos_depth=conv_pos_depth,
            conv_pos_kernel=max(3, _integer(audio, "conv_pos_width") // conv_pos_depth),
            conv_pos_groups=_integer(audio, "conv_pos_groups"),
            num_extra_tokens=_integer(audio, "num_extra_tokens"),
            norm_eps=_number(model_conf, "norm_eps"),
            normalize=_typed(model_conf, "normalize", bool),
            alibi_scale_per_layer=_typed(audio, "learned_alibi_scale_per_layer", bool),
            alibi_scale_per_head=_typed(audio, "learned_alibi_scale_per_head", bool),
        )


def parse_conv_spec(spec: str) -> tuple[ConvLayer, ...]:
    """Read a `feature_encoder_spec` such as `[(512, 10, 5)] + [(512, 3, 2)] * 4`.

    The published configurations hold it as Python source, which FunASR evaluates; here it is only parsed.

    Raises:
        CheckpointInvalid: if the text is not such a sum.
    """
    layers: list[ConvLayer] = []
    for term in re.sub(r"\s", "", spec).split("+"):
        match = _CONV_TERM.fullmatch(term)
        if match is None:
            raise CheckpointInvalid(
                f"feature_encoder_spec is not a sum of [(channels, kernel, stride)] * n: {spec!r:.99}"
            )
        channels, kernel, stride = (int(match[i]) for i in (1, 2, 3))
        layers += [ConvLayer(channels, kernel, stride)] * int(match[4] or 1)
        if len(layers) > _MAX_LAYERS:
            raise CheckpointInvalid(f"feature_encoder_spec has more than {_MAX_LAYERS} layers")
    return tuple(layers)


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head's ALiBi bias, a geometric sequence.

    Where `heads` is not a power of two (the base models have 12), the slopes of the next lower power come first,
    then every second one of the next higher.

    Source: Press et al. 2022, "Train Short, Test Long", and the authors' `fairseq` code.
    """
    lower = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8 * (i + 1) / lower) for i in range(lower)]
    slopes += [2.0 ** (-4 * (i + 1) / lower) for i in range(0, 2 * lower, 2)]
    return slopes[:heads]


def _lookup(values: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(values, Mapping) or name not in values:
            raise CheckpointInvalid(f"{path} is missing from model_conf")
        values = values[name]
    return values


def _typed(values: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = _lookup(values, name)
    if type(value) is not kind:
        raise CheckpointInvalid(f"{name} is not of type {kind.__name__}: {value!r:.100}")
    return value


def _integer(values: Mapping[str, Any], name: str) -> int:
    value = _typed(values, name, int)
    if abs(value) > 2**31:
        raise CheckpointInvalid(f"{name} is too large: {value!r:.100}")
    return value


def _number(values: Mapping[str, Any], name: str) -> float:
    value = _lookup(values, name)
    # YAML 1.1 reads `1e-05`, as published configurations write it, as text.
    if type(value) is str and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float) or not 0 <= value <= 1e6:
        raise CheckpointInvalid(f"{name} is not a number of a sensible size: {value!r:.100}")
    return float(value)
