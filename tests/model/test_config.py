from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.common.hub_checkpoints import model_conf
from service.errors import CheckpointInvalid
from service.model.config import ConvLayer, ModelConfig, alibi_slopes, parse_conv_spec

PUBLISHED = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"


def changed(path: str, value: Any) -> dict[str, Any]:
    conf = copy.deepcopy(model_conf())
    *parents, name = path.split(".")
    section = conf
    for parent in parents:
        section = section[parent]
    section[name] = value
    return conf


def without(path: str) -> dict[str, Any]:
    conf = changed(path, None)
    *parents, name = path.split(".")
    section = conf
    for parent in parents:
        section = section[parent]
    del section[name]
    return conf


def test_the_published_large_model() -> None:
    conf = model_conf(embed_dim=1024, num_heads=16, prenet_depth=4, depth=8, channels=512)
    config = ModelConfig.from_hub(conf)
    assert config.conv_layers == (
        ConvLayer(512, 10, 5),
        *[ConvLayer(512, 3, 2)] * 4,
        *[ConvLayer(512, 2, 2)] * 2,
    )
    assert (config.blocks, config.mlp_dim, config.conv_pos_kernel) == (12, 4096, 19)
    assert config.normalize
    assert not config.alibi_scale_per_layer


def test_numbers_that_yaml_reads_as_text() -> None:
    """FunASR's own template has `norm_eps: 1e-05`, which is text in YAML 1.1."""
    assert ModelConfig.from_hub(changed("norm_eps", "1e-05")).norm_eps == 1e-5


@pytest.mark.parametrize(("width", "depth", "kernel"), [(95, 5, 19), (48, 3, 16), (5, 5, 3)])
def test_kernel_of_the_positional_convolutions(width: int, depth: int, kernel: int) -> None:
    config = ModelConfig.from_hub(model_conf(conv_pos_width=width, conv_pos_depth=depth))
    assert config.conv_pos_kernel == kernel


AUDIO = "modalities.audio."


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("layer_norm_first", True),
        ("layer_norm_first", 0),
        ("norm_affine", False),
        ("supported_modality", "IMAGE"),
        (AUDIO + "type", "TEXT"),
        (AUDIO + "extractor_mode", "default"),
        (AUDIO + "learned_alibi", True),
        (AUDIO + "use_alibi_encoder", False),
        (AUDIO + "conv_pos_pre_ln", True),
        (AUDIO + "num_alibi_heads", 3),
        (AUDIO + "model_depth", 3),
        ("modalities", ["audio"]),
        ("embed_dim", 65),
        ("embed_dim", 2**20),
        ("embed_dim", "64"),
        ("embed_dim", True),
        ("embed_dim", -64),
        ("depth", 0),
        ("depth", 10**30),
        ("mlp_ratio", float("nan")),
        ("mlp_ratio", float("inf")),
        ("mlp_ratio", 0),
        ("norm_eps", 0.0),
        ("norm_eps", "1e-05; import os"),
        ("normalize", "yes"),
        (AUDIO + "prenet_depth", -1),
        (AUDIO + "num_extra_tokens", 10**6),
        (AUDIO + "conv_pos_depth", 0),
        (AUDIO + "conv_pos_groups", 7),
        (AUDIO + "conv_pos_groups", 0),
        (AUDIO + "feature_encoder_spec", ["x"]),
        (AUDIO + "feature_encoder_spec", "[(512, 10, 5)]"),
    ],
)
def test_unsupported_values_are_refused_with_the_field_name(path: str, value: Any) -> None:
    conf = changed(path, value)
    if path == "depth":
        conf["modalities"]["audio"]["model_depth"] = value
    with pytest.raises(CheckpointInvalid, match=path.rpartition(".")[2].removesuffix("_ratio")):
        ModelConfig.from_hub(conf)


@pytest.mark.parametrize("path", ["embed_dim", "norm_eps", "normalize", "modalities.audio", AUDIO + "prenet_depth"])
def test_a_missing_field_is_named(path: str) -> None:
    with pytest.raises(CheckpointInvalid, match=rf"{path.rpartition('.')[2]}\b.* is missing"):
        ModelConfig.from_hub(without(path))


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "[(512, 10, 5)] +",
        "[(512, 10)]",
        "[(512, 10, 5)] * -1",
        "[(512, 10, 5)] * 99",
        "[(0, 10, 5)]",
        "[(512, 2, 5)]",
        "[(512, 10, 0)]",
        "[(99999, 10, 5)]",
        "__import__('os').system('id')",
        "[(512, 10, 5)] + [x for x in ()]",
        "[(512, 10, 5)]*9**9",
        "+".join(["[(1,1,1)]*64"] * 2),
    ],
)
def test_feature_encoder_spec_is_not_evaluated(spec: str) -> None:
    with pytest.raises(CheckpointInvalid, match="feature_encoder_spec"):
        parse_conv_spec(spec)


def test_feature_encoder_spec() -> None:
    assert parse_conv_spec("[(32,10,5)]+[(48,3,2)] * 2") == (ConvLayer(32, 10, 5), *[ConvLayer(48, 3, 2)] * 2)


@given(st.integers(1, 100_000))
def test_samples_is_the_smallest_inverse_of_frames(frames: int) -> None:
    config = ModelConfig.from_hub(model_conf())
    samples = config.samples(frames)
    assert config.frames(samples) == frames
    assert config.frames(samples - 1) == frames - 1


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49)])
def test_frames(samples: int, frames: int) -> None:
    assert ModelConfig.from_hub(model_conf()).frames(samples) == frames


def test_slopes_of_a_power_of_two() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]


def test_slopes_of_twelve_heads() -> None:
    """Those of eight heads, then every second one of sixteen."""
    assert alibi_slopes(12)[:8] == alibi_slopes(8)
    assert alibi_slopes(12)[8:] == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])


@given(st.integers(1, 256))
def test_every_head_has_a_slope_of_its_own(heads: int) -> None:
    slopes = alibi_slopes(heads)
    assert len(set(slopes)) == len(slopes) == heads
    assert all(0 < slope < 1 and math.isfinite(slope) for slope in slopes)
