"""The emotion2vec encoder and its head, for inference only, over padded batches.

Its parameters have the names of the published checkpoints, so weights are assigned without renaming.

The results of a padded batch equal those of single clips, because
- the front end uses no padding, so padded samples never reach a valid frame;
- frames past a clip's end are zeroed before each positional convolution, which pads with zeros;
- attention masks those frames as keys.

Source of the architecture: Ma et al. 2023, "emotion2vec", and FunASR's implementation of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.errors import CheckpointInvalid
from service.model.config import ConvLayer, ModelConfig, alibi_slopes
from service.model.network.attention import AttentionBias, TransformerBlock
from service.results import FRAME_HOP

FRONT_END_FRAMES = {"cpu": 2048, "cuda": 4096}
"""Frames of the whole batch that the front end makes at a time (0.4 MiB of FP32 each in the published models)."""

_FULL_PRECISION = ("modality_encoders.AUDIO.alibi_scale", "proj.weight", "proj.bias")
"""Weights that stay FP32 when the encoder runs in half precision: they are small and affect the scores most."""


class Encoded(NamedTuple):
    """The results of a batch; values of frames past a clip's end and of clips without frames are undefined.

    Attributes:
        features: (clip, frame, width) in the encoder's precision.
        logits: FP32 (clip, frame, label).
        embeddings: FP32 (clip, width).
    """

    features: Tensor
    logits: Tensor
    embeddings: Tensor


class Encoder(nn.Module):
    """Maps waveforms to frame features and frame logits.

    Args:
        config: the dimensions.
        labels: number of outputs of the head.
    """

    def __init__(self, config: ModelConfig, labels: int) -> None:
        super().__init__()
        self.modality_encoders = nn.ModuleDict({"AUDIO": _AudioEncoder(config)})
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.proj = nn.Linear(config.embed_dim, labels)
        self.extra = config.num_extra_tokens
        # On the CPU even where parameters are made on the meta device: no checkpoint holds the slopes.
        self.slopes: Tensor
        self.register_buffer("slopes", torch.tensor(alibi_slopes(config.num_heads), device="cpu"), persistent=False)

    @classmethod
    def from_weights(
        cls, config: ModelConfig, weights: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype
    ) -> Encoder:
        """Make an encoder of `weights` without initialising its parameters first.

        Args:
            config: the dimensions.
            weights: by the checkpoint's names; additional names are ignored.
            device: where the encoder runs.
            dtype: its precision; the head and the scales of the attention bias have at least FP32.

        Raises:
            CheckpointInvalid: if a weight is missing or has another shape.
        """
        labels = weights["proj.bias"].shape[0] if "proj.bias" in weights else 1
        check_shapes(config, labels, weights)
        with torch.device("meta"):
            encoder = cls(config, labels)
        state = {}
        for name in encoder.state_dict():
            full = name in _FULL_PRECISION
            state[name] = weights[name].to(device, torch.promote_types(dtype, torch.float32) if full else dtype)
        encoder.load_state_dict(state, assign=True)
        return encoder.to(device).eval().requires_grad_(False)

    def forward(self, waveforms: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            waveforms: (clip, sample) at 16 kHz, each normalised and then padded, in the encoder's precision.
            frames: integer (clip,), the valid frames of each clip; None where nothing is padded.

        Returns:
            Features (clip, frame, width) in the encoder's precision and logits (clip, frame, label) in that of the
            head. Values of frames past a clip's end are undefined.
        """
        audio = cast(_AudioEncoder, self.modality_encoders["AUDIO"])
        x = audio.local_features(waveforms)
        padded = None if frames is None else torch.arange(x.shape[1], device=x.device) >= frames[:, None]
        x = audio.tokens(x, padded)
        bias = AttentionBias(
            self.slopes,
            audio.alibi_scale.flatten(1),
            extra=self.extra,
            tokens=x.shape[1],
            padded=None if padded is None else functional.pad(padded, (self.extra, 0)),
            dtype=x.dtype,
        )
        for index, block in enumerate((*cast(nn.ModuleList, audio.context_encoder["blocks"]), *self.blocks)):
            x = block(x, bias, index)
        features = x[:, self.extra :]
        return features, self.proj(features.to(self.proj.weight.dtype))

    def encode(self, waveforms: Tensor, frames: Tensor | None = None) -> Encoded:
        """Encode a batch, and average each clip's features over its frames in FP32; arguments as in `forward`."""
        features, logits = self(waveforms, frames)
        full = features.float()
        if frames is None:
            return Encoded(features, logits, full.mean(dim=1))
        padded = torch.arange(full.shape[1], device=full.device) >= frames[:, None]
        # Not by multiplication, since values in the padding may be NaN or infinite.
        total = full.masked_fill(padded[:, :, None], 0.0).sum(dim=1)
        return Encoded(features, logits, total / frames.clamp(min=1)[:, None])


def expected_shapes(config: ModelConfig, labels: int) -> dict[str, list[int]]:
    """Name and shape of every weight that inference uses, including the head for `labels` labels."""
    with torch.device("meta"):
        return {name: list(values.shape) for name, values in Encoder(config, labels).state_dict().items()}


def check_shapes(config: ModelConfig, labels: int, weights: Mapping[str, Tensor]) -> None:
    """Compare the shapes of weights with those that `config` requires; additional weights are ignored.

    Raises:
        CheckpointInvalid: if a weight is missing or has another shape; the message names the first.
    """
    for name, shape in expected_shapes(config, labels).items():
        if name not in weights:
            raise CheckpointInvalid(f"the checkpoint has no weight {name} (expected shape {shape})")
        if (found := list(weights[name].shape)) != shape:
            raise CheckpointInvalid(f"the checkpoint's weight {name} has shape {found}; expected {shape}")


class _AudioEncoder(nn.Module):
    """Everything before the transformer's blocks, and the blocks of the prenet."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, channels = config.embed_dim, config.conv_layers[-1].channels
        inputs = [1, *(layer.channels for layer in config.conv_layers)]
        self.config = config
        self.local_encoder = nn.ModuleDict(
            {"conv_layers": nn.ModuleList(map(_FrontEndLayer, inputs, config.conv_layers))}
        )
        self.project_features = nn.Sequential(nn.Identity(), nn.LayerNorm(channels), nn.Linear(channels, width))
        self.relative_positional_encoder = nn.ModuleDict(
            {str(i + 1): _PositionalLayer(config) for i in range(config.conv_pos_depth)}
        )
        self.context_encoder = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(width, config.norm_eps),
                "blocks": nn.ModuleList(TransformerBlock(config) for _ in range(config.prenet_depth)),
            }
        )
        layers = config.blocks if config.alibi_scale_per_layer else 1
        self.alibi_scale = nn.Parameter(
            torch.empty(layers, 1, config.num_heads if config.alibi_scale_per_head else 1, 1, 1)
        )
        if config.num_extra_tokens:
            self.extra_tokens = nn.Parameter(torch.empty(1, config.num_extra_tokens, width))

    def local_features(self, waveforms: Tensor) -> Tensor:
        """Map waveforms (clip, sample) to projected frames (clip, frame, width), a chunk of frames at a time."""
        total = self.config.frames(waveforms.shape[1])
        step = max(1, FRONT_END_FRAMES[waveforms.device.type] // waveforms.shape[0])
        parts = []
        for first in range(0, total, step):
            begin = first * FRAME_HOP
            x = waveforms[:, begin : begin + self.config.samples(min(step, total - first)), None]
            for layer in cast(nn.ModuleList, self.local_encoder["conv_layers"]):
                x = layer(x)
            parts.append(self.project_features(x))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def tokens(self, x: Tensor, padded: Tensor | None) -> Tensor:
        """Add the positional encoding to frames, put the extra tokens in front, normalise: (clip, token, width)."""
        hidden = None if padded is None else padded[:, :, None]
        position = x
        for layer in self.relative_positional_encoder.values():
            position = layer(position if hidden is None else position.masked_fill(hidden, 0.0))
        x = x + position
        if self.config.num_extra_tokens:
            x = torch.cat([self.extra_tokens.expand(x.shape[0], -1, -1), x], dim=1)
        return cast(Tensor, self.context_encoder["norm"](x))


class _FrontEndLayer(nn.ModuleDict):
    """A convolution, layer norm over channels, GELU; (clip, time, channel) in and out.

    With channels last, the convolution is one matrix product over windows and the norm needs no transposition, which
    takes half the CPU time of `conv1d` between two transpositions.
    """

    def __init__(self, inputs: int, layer: ConvLayer) -> None:
        conv = nn.Conv1d(inputs, layer.channels, layer.kernel, layer.stride, bias=False)
        super().__init__({"0": conv, "2": nn.ModuleDict({"1": nn.LayerNorm(layer.channels)})})
        self.kernel, self.stride = layer.kernel, layer.stride

    def forward(self, x: Tensor) -> Tensor:
        weight = cast(nn.Conv1d, self["0"]).weight.transpose(1, 2).flatten(1)
        windows = x.unfold(1, self.kernel, self.stride).transpose(2, 3).flatten(2)
        norm = cast(nn.ModuleDict, self["2"])["1"]
        return functional.gelu(norm(functional.linear(windows, weight)))


class _PositionalLayer(nn.ModuleDict):
    """A grouped convolution that keeps the length, layer norm without weights, GELU; (clip, frame, width) both ways."""

    def __init__(self, config: ModelConfig) -> None:
        width, kernel = config.embed_dim, config.conv_pos_kernel
        super().__init__({"0": nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.conv_pos_groups)})

    def forward(self, x: Tensor) -> Tensor:
        # With an even kernel there is one frame too many, at the end.
        y = self["0"](x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
        return functional.gelu(functional.layer_norm(y, y.shape[-1:]))
