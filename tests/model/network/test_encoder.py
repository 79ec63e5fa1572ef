from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadtests.common.hub_checkpoints import make_weights, model_conf, odd_model_conf, spread_labels
from service.errors import CheckpointInvalid
from service.model.config import ModelConfig
from service.model.normalize import normalized
from service.model.synthetic_speech import speech_like
from service.results import Floats
from tests.rounding import EXACT, feature_tolerance, half_precision_tolerance, logit_tolerance, mean_tolerance

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402

from service.model.network import attention  # noqa: E402
from service.model.network import encoder as encoder_module  # noqa: E402
from service.model.network.encoder import Encoder, check_shapes, expected_shapes  # noqa: E402

CPU = torch.device("cpu")
CONFIG = ModelConfig.from_hub(model_conf())
CONFS = {
    "published shape": model_conf(),
    "odd shape": odd_model_conf(),
    "no extra tokens, no prenet": model_conf(num_extra_tokens=0, prenet_depth=0, scale_per_head=False),
}


@cache
def make(conf: str = "published shape", dtype: torch.dtype = torch.float32) -> Encoder:
    config = ModelConfig.from_hub(CONFS[conf])
    weights = make_weights(config, 9)
    spread_labels(config, weights, [speech_like(1.0, seed) for seed in range(6)])
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    return Encoder.from_weights(config, tensors, device=CPU, dtype=dtype)


@pytest.fixture(
    scope="module",
    params=[(conf, dtype) for conf in CONFS for dtype in (torch.float32, torch.float64)],
    ids=lambda param: f"{param[0]}, {str(param[1]).removeprefix('torch.')}",
)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """In float64 an equal algorithm gives equal values; in float32 they may differ by the rounding of its sums."""
    return make(*request.param)


def tolerances(encoder: Encoder, frames: int) -> tuple[float, float]:
    """Tolerances for features and logits whose sums are computed in another order."""
    config = encoder.modality_encoders["AUDIO"].config
    assert isinstance(config, ModelConfig)
    if encoder.proj.weight.dtype == torch.float64:
        return EXACT, EXACT
    tokens = frames + config.num_extra_tokens
    return feature_tolerance(config, tokens), logit_tolerance(config, tokens, encoder.proj.weight.numpy())


def single(encoder: Encoder, waveform: Floats) -> tuple[Floats, Floats]:
    """Frame features and logits of one clip alone."""
    with torch.inference_mode():
        features, logits = encoder(torch.from_numpy(waveform)[None].to(encoder.proj.weight.dtype))
    return features[0].numpy(), logits[0].numpy()


def padded_batch(encoder: Encoder, waveforms: list[Floats], extra: int = 0) -> list[tuple[Floats, Floats]]:
    """The same clips as rows of one batch, with `extra` more samples of padding."""
    config = ModelConfig.from_hub(CONFS["published shape"])
    frames = [config.frames(len(waveform)) for waveform in waveforms]
    batch = torch.zeros(len(waveforms), max(map(len, waveforms)) + extra, dtype=encoder.proj.weight.dtype)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    with torch.inference_mode():
        features, logits = encoder(batch, torch.tensor(frames))
    return [(features[i, :n].numpy(), logits[i, :n].numpy()) for i, n in enumerate(frames)]


def test_number_of_weights_of_the_large_model_without_its_decoder() -> None:
    config = ModelConfig.from_hub(model_conf(embed_dim=1024, num_heads=16, prenet_depth=4, depth=8, channels=512))
    assert sum(map(math.prod, expected_shapes(config, 9).values())) == 162_140_185


def test_names() -> None:
    shapes = expected_shapes(CONFIG, 9)
    audio = "modality_encoders.AUDIO."
    assert shapes[audio + "local_encoder.conv_layers.1.0.weight"] == [32, 32, 3]
    assert shapes[audio + "relative_positional_encoder.5.0.weight"] == [64, 4, 19]
    assert shapes[audio + "alibi_scale"] == [1, 1, 4, 1, 1]
    assert shapes[audio + "context_encoder.blocks.0.attn.qkv.weight"] == [192, 64]
    assert shapes["blocks.1.mlp.fc1.bias"] == [256]
    assert shapes["proj.weight"] == [9, 64]


@pytest.mark.parametrize(
    ("per_layer", "per_head", "shape"),
    [(True, True, [3, 1, 4, 1, 1]), (True, False, [3, 1, 1, 1, 1]), (False, False, [1, 1, 1, 1, 1])],
)
def test_scales_of_the_bias(per_layer: bool, per_head: bool, shape: list[int]) -> None:
    config = ModelConfig.from_hub(model_conf(scale_per_layer=per_layer, scale_per_head=per_head))
    assert expected_shapes(config, 9)["modality_encoders.AUDIO.alibi_scale"] == shape


def test_no_extra_tokens() -> None:
    config = ModelConfig.from_hub(model_conf(num_extra_tokens=0))
    assert not any("extra_tokens" in name for name in expected_shapes(config, 9))


def empty_weights() -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape) for name, shape in expected_shapes(CONFIG, 9).items()}


def test_additional_names_are_ignored() -> None:
    check_shapes(CONFIG, 9, {**empty_weights(), "decoder.weight": torch.empty(1)})


def test_a_missing_weight_is_named_with_its_shape() -> None:
    weights = empty_weights()
    del weights["blocks.0.norm1.weight"]
    with pytest.raises(CheckpointInvalid, match=r"no weight blocks\.0\.norm1\.weight .*\[64\]"):
        check_shapes(CONFIG, 9, weights)


def test_a_misshapen_weight_is_named_with_both_shapes() -> None:
    weights = {**empty_weights(), "proj.weight": torch.empty(5, 64)}
    with pytest.raises(CheckpointInvalid, match=r"proj\.weight has shape \[5, 64\]; expected \[9, 64\]"):
        check_shapes(CONFIG, 9, weights)


def test_weights_are_assigned_not_copied() -> None:
    config = ModelConfig.from_hub(CONFS["published shape"])
    tensors = {name: torch.from_numpy(values) for name, values in make_weights(config, 9).items()}
    made = Encoder.from_weights(config, tensors, device=CPU, dtype=torch.float32)
    name = "blocks.0.attn.qkv.weight"
    assert made.get_parameter(name).data_ptr() == tensors[name].data_ptr()
    assert not any(values.is_meta for values in (*made.parameters(), *made.buffers()))


def test_a_missing_weight_is_named() -> None:
    config = ModelConfig.from_hub(CONFS["published shape"])
    tensors = {name: torch.from_numpy(values) for name, values in make_weights(config, 9).items()}
    del tensors["blocks.1.mlp.fc2.bias"]
    with pytest.raises(CheckpointInvalid, match=r"blocks\.1\.mlp\.fc2\.bias"):
        Encoder.from_weights(config, tensors, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (401, 1), (719, 1), (720, 2), (16_000, 49)])
def test_frames(encoder: Encoder, samples: int, frames: int) -> None:
    features, logits = single(encoder, normalized(speech_like(samples / 16_000)))
    assert features.shape[0] == logits.shape[0] == frames


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(400, 12_000), min_size=1, max_size=4),
    extra=st.integers(0, 3000),
    seed=st.integers(0, 2**16),
)
def test_a_padded_batch_equals_single_clips(encoder: Encoder, lengths: list[int], extra: int, seed: int) -> None:
    waveforms = [normalized(speech_like(n / 16_000, seed + i)) for i, n in enumerate(lengths)]
    for waveform, (features, logits) in zip(waveforms, padded_batch(encoder, waveforms, extra), strict=True):
        alone = single(encoder, waveform)
        assert features.shape == alone[0].shape
        of_features, of_logits = tolerances(encoder, len(features))
        np.testing.assert_allclose(features, alone[0], atol=of_features, rtol=0)
        np.testing.assert_allclose(logits, alone[1], atol=of_logits, rtol=0)


def test_padding_values_do_not_change_results(encoder: Encoder) -> None:
    waveform = normalized(speech_like(1.0))
    frames = torch.tensor([49, 49])
    batch = torch.zeros(2, 24_000, dtype=encoder.proj.weight.dtype)
    batch[:, :16_000] = torch.from_numpy(waveform)
    # Right behind the last frame's samples, where it would change that frame if the front end padded.
    batch[1, 49 * 320 + 400 :] = 1000.0
    with torch.inference_mode():
        features, logits = encoder(batch, frames)
    of_features, of_logits = tolerances(encoder, 49)
    torch.testing.assert_close(features[0, :49], features[1, :49], atol=of_features, rtol=0)
    torch.testing.assert_close(logits[0, :49], logits[1, :49], atol=of_logits, rtol=0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(attention.BIAS_ELEMENTS, "cpu", 12 * 110 * 7)
    monkeypatch.setitem(encoder_module.FRONT_END_FRAMES, "cpu", 33)


@pytest.mark.usefixtures("small_blocks")
def test_computing_in_blocks_gives_the_same_results(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms = [normalized(speech_like(2.0)), normalized(speech_like(0.7, 1))]
    alone, batch = single(encoder, waveforms[0]), padded_batch(encoder, waveforms)
    monkeypatch.undo()
    whole = single(encoder, waveforms[0])
    of_features, of_logits = tolerances(encoder, len(whole[0]))
    for blocked in (alone, batch[0]):
        np.testing.assert_allclose(blocked[0], whole[0], atol=of_features, rtol=0)
        np.testing.assert_allclose(blocked[1], whole[1], atol=of_logits, rtol=0)


@pytest.mark.usefixtures("small_blocks")
def test_memory_of_the_bias_stays_bounded() -> None:
    encoder, largest = make(), 0
    original = attention.AttentionBias._make

    def spy(self: attention.AttentionBias, block: int, first: int, last: int) -> torch.Tensor:
        nonlocal largest
        bias = original(self, block, first, last)
        largest = max(largest, bias.numel())
        return bias

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention.AttentionBias, "_make", spy)
        single(encoder, normalized(speech_like(4.0)))
    assert 0 < largest <= attention.BIAS_ELEMENTS["cpu"]


def test_blocks_of_queries_are_multiples_of_the_tile() -> None:
    def rows(fit: int, tokens: int = 1000) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(attention.BIAS_ELEMENTS, "cpu", fit * 2 * tokens + 1)
            slopes, scales = torch.tensor([0.5, 0.25]), torch.tensor([[2.0, -3.0]])
            bias = attention.AttentionBias(slopes, scales, extra=1, tokens=tokens, padded=None, dtype=torch.float32)
        return bias.rows

    assert [rows(fit) for fit in (0, 7, 63, 64, 100, 128, 999, 1000, 5000)] == [1, 7, 63, 64, 64, 128, 960, 1000, 1000]


def test_embeddings_are_means_over_valid_frames(encoder: Encoder) -> None:
    waveforms = [normalized(speech_like(seconds)) for seconds in (1.0, 0.3, 0.7)]
    dtype = encoder.proj.weight.dtype
    batch = torch.zeros(4, 24_000, dtype=dtype)
    for row, waveform in zip(batch, waveforms, strict=False):
        row[: len(waveform)] = torch.from_numpy(waveform)
    with torch.inference_mode():
        found = encoder.encode(batch, torch.tensor([49, 14, 34, 0]))
        for row, waveform in enumerate(waveforms):
            alone = encoder.encode(torch.from_numpy(waveform)[None].to(dtype))
            mean = alone.features.float().mean(dim=1)
            of_features, _ = tolerances(encoder, alone.features.shape[1])
            of_mean = mean_tolerance(alone.features.shape[1])
            torch.testing.assert_close(alone.embeddings, mean, atol=of_mean, rtol=0)
            torch.testing.assert_close(
                found.embeddings[row], alone.embeddings[0], atol=of_features + 2 * of_mean, rtol=0
            )
    assert found.embeddings.dtype == torch.float32
    assert found.embeddings.shape == (4, encoder.proj.in_features)


def test_the_bias_equals_its_definition() -> None:
    slopes, scales = torch.tensor([0.5, 0.25]), torch.tensor([[2.0, -3.0]])
    padded = torch.tensor([[False, False, False, True]])
    bias = attention.AttentionBias(slopes, scales, extra=1, tokens=4, padded=padded, dtype=torch.float32)
    none = float("-inf")
    # One extra token, then frames 0, 1 and a padded one; the second head's scale counts as zero.
    expected = [[0, 0, 0, none], [0, 0, -1, none], [0, -1, 0, none], [0, -2, -1, none]]
    assert bias.of(0, 0, 4)[0, 0].tolist() == expected
    assert bias.of(0, 0, 4)[0, 1, :, :3].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    full, half = make(), make(dtype=dtype)
    config = ModelConfig.from_hub(CONFS["published shape"])
    atol = half_precision_tolerance(config, torch.finfo(dtype).eps / 2)
    for seed in range(3):
        waveform = normalized(speech_like(1.0, seed))
        with torch.inference_mode():
            features, logits = half(torch.from_numpy(waveform)[None].to(dtype))
        assert features.dtype == dtype
        assert logits.dtype == torch.float32
        # Embeddings, since the head of random weights multiplies errors.
        found = features[0].float().numpy().mean(axis=0)
        np.testing.assert_allclose(found, single(full, waveform)[0].mean(axis=0), atol=atol, rtol=0)


@pytest.mark.slow
def test_the_graph_has_no_breaks() -> None:
    encoder = make("odd shape")
    waveforms = torch.from_numpy(normalized(speech_like(1.0)))[None].expand(2, -1)
    frames = torch.tensor([49, 30])
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    with torch.inference_mode():
        for arguments in ((waveforms, frames), (waveforms[:1], None)):
            torch.testing.assert_close(compiled(*arguments), encoder(*arguments))
