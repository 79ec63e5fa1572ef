from __future__ import annotations

import math

import pytest

from loadtests.common.hub_checkpoints import model_conf
from service.errors import CheckpointInvalid
from service.model.config import ModelConfig
from service.model.weights import check_shapes, expected_shapes

CONFIG = ModelConfig.from_hub(model_conf())


def test_number_of_weights_of_the_large_model_without_its_decoder() -> None:
    config = ModelConfig.from_hub(model_conf(embed_dim=1024, num_heads=16, prenet_depth=4, depth=8, channels=512))
    assert sum(map(math.prod, expected_shapes(config, 9).values())) == 162_140_185


def test_names() -> None:
    shapes = expected_shapes(CONFIG, 9)
    audio = "modality_encoders.AUDIO."
    assert shapes[audio + "local_encoder.conv_layers.1.0.weight"] == (32, 32, 3)
    assert shapes[audio + "relative_positional_encoder.5.0.weight"] == (64, 4, 19)
    assert shapes[audio + "alibi_scale"] == (1, 1, 4, 1, 1)
    assert shapes[audio + "context_encoder.blocks.0.attn.qkv.weight"] == (192, 64)
    assert shapes["blocks.1.mlp.fc1.bias"] == (256,)
    assert shapes["proj.weight"] == (9, 64)


@pytest.mark.parametrize(
    ("per_layer", "per_head", "shape"),
    [(True, True, (3, 1, 4, 1, 1)), (True, False, (3, 1, 1, 1, 1)), (False, False, (1, 1, 1, 1, 1))],
)
def test_scales_of_the_bias(per_layer: bool, per_head: bool, shape: tuple[int, ...]) -> None:
    config = ModelConfig.from_hub(model_conf(scale_per_layer=per_layer, scale_per_head=per_head))
    assert expected_shapes(config, 9)["modality_encoders.AUDIO.alibi_scale"] == shape


def test_no_extra_tokens() -> None:
    config = ModelConfig.from_hub(model_conf(num_extra_tokens=0))
    assert not any("extra_tokens" in name for name in expected_shapes(config, 9))


def test_additional_names_are_ignored() -> None:
    check_shapes(CONFIG, 9, {**expected_shapes(CONFIG, 9), "decoder.weight": (1,)})


def test_a_missing_weight_is_named_with_its_shape() -> None:
    found = expected_shapes(CONFIG, 9)
    del found["blocks.0.norm1.weight"]
    with pytest.raises(CheckpointInvalid, match=r"no weight blocks\.0\.norm1\.weight .*\[64\]"):
        check_shapes(CONFIG, 9, found)


def test_a_misshapen_weight_is_named_with_both_shapes() -> None:
    found = {**expected_shapes(CONFIG, 9), "proj.weight": (5, 64)}
    with pytest.raises(CheckpointInvalid, match=r"proj\.weight has shape \[5, 64\]; expected \[9, 64\]"):
        check_shapes(CONFIG, 9, found)
