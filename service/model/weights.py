"""Names and shapes of the weights of an encoder and its head; the names are those of the published checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.errors import CheckpointInvalid
from service.model.config import ModelConfig

_AUDIO = "modality_encoders.AUDIO"


def expected_shapes(config: ModelConfig, labels: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that inference uses, including the head for `labels` labels."""
    return dict(_shapes(config, labels))


def check_shapes(config: ModelConfig, labels: int, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare `found`, the shapes by name, with those that `config` requires; additional names are ignored.

    Raises:
        CheckpointInvalid: if a weight is missing or has another shape; the message names the first.
    """
    for name, shape in _shapes(config, labels):
        if name not in found:
            raise CheckpointInvalid(f"the checkpoint has no weight {name} (expected shape {list(shape)})")
        if tuple(found[name]) != shape:
            raise CheckpointInvalid(
                f"the checkpoint's weight {name} has shape {list(found[name])}; expected {list(shape)}"
            )


def _shapes(config: ModelConfig, labels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = config.embed_dim
    channels = 1
    for i, layer in enumerate(config.conv_layers):
        prefix = f"{_AUDIO}.local_encoder.conv_layers.{i}"
        yield f"{prefix}.0.weight", (layer.channels, channels, layer.kernel)
        yield from _affine(f"{prefix}.2.1", layer.channels)
        channels = layer.channels
    yield from _affine(f"{_AUDIO}.project_features.1", channels)
    yield from _linear(f"{_AUDIO}.project_features.2", channels, width)
    for i in range(config.conv_pos_depth):
        prefix = f"{_AUDIO}.relative_positional_encoder.{i + 1}.0"
        yield f"{prefix}.weight", (width, width // config.conv_pos_groups, config.conv_pos_kernel)
        yield f"{prefix}.bias", (width,)
    if config.num_extra_tokens:
        yield f"{_AUDIO}.extra_tokens", (1, config.num_extra_tokens, width)
    layers = config.blocks if config.alibi_scale_per_layer else 1
    heads = config.num_heads if config.alibi_scale_per_head else 1
    yield f"{_AUDIO}.alibi_scale", (layers, 1, heads, 1, 1)
    yield from _affine(f"{_AUDIO}.context_encoder.norm", width)
    for i in range(config.prenet_depth):
        yield from _block(f"{_AUDIO}.context_encoder.blocks.{i}", width, config.mlp_dim)
    for i in range(config.depth):
        yield from _block(f"blocks.{i}", width, config.mlp_dim)
    yield from _linear("proj", width, labels)


def _block(prefix: str, width: int, mlp_dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _affine(f"{prefix}.norm1", width)
    yield from _linear(f"{prefix}.attn.qkv", width, 3 * width)
    yield from _linear(f"{prefix}.attn.proj", width, width)
    yield from _affine(f"{prefix}.norm2", width)
    yield from _linear(f"{prefix}.mlp.fc1", width, mlp_dim)
    yield from _linear(f"{prefix}.mlp.fc2", mlp_dim, width)


def _affine(prefix: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.weight", (width,)
    yield f"{prefix}.bias", (width,)


def _linear(prefix: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.weight", (outputs, inputs)
    yield f"{prefix}.bias", (outputs,)
