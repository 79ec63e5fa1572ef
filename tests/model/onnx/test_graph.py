"""The graph compared with itself: in chunks and whole, INT8 and FP32. Parity is tested in test_parity.py."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.model.config import ConvLayer, ModelConfig
from service.model.onnx import inputs
from service.model.onnx.inputs import lay_out
from tests.rounding import feature_tolerance, logit_tolerance, product_tolerance

onnx_graph = pytest.importorskip("service.model.onnx.graph")
onnx_front_end = pytest.importorskip("service.model.onnx.front_end")
encoder = pytest.importorskip("service.model.network.encoder")
input_means = pytest.importorskip("service.model.network.input_means")
pytestmark = pytest.mark.torch  # onnx comes with that extra

LABELS = 5
CONFIG = ModelConfig(
    conv_layers=(ConvLayer(8, 10, 5), *4 * [ConvLayer(16, 3, 2)], ConvLayer(16, 2, 2), ConvLayer(24, 2, 2)),
    embed_dim=48,
    num_heads=6,
    prenet_depth=1,
    depth=2,
    mlp_dim=96,
    conv_pos_depth=2,
    conv_pos_kernel=4,
    conv_pos_groups=4,
    num_extra_tokens=3,
    norm_eps=1e-5,
    normalize=True,
    alibi_scale_per_layer=True,
    alibi_scale_per_head=False,
)


def _weights() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(3)
    values = {}
    for name, shape in encoder.expected_shapes(CONFIG, LABELS).items():
        fan_in = max(1, int(np.prod(shape[1:])))
        values[name] = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
    return values


WEIGHTS = _weights()


@pytest.fixture
def waveform() -> NDArray[np.float32]:
    return np.random.default_rng(4).standard_normal(20_137).astype(np.float32)


def run(path: Path, waveform: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = lay_out([waveform], CONFIG)
    features, logits = session.run(["features", "logits"], inputs.tensors)
    return features[inputs.frames[0]], logits[inputs.frames[0]]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "ATTENTION_ELEMENTS", 1)
    monkeypatch.setattr(inputs, "MIN_QUERIES", 7)
    monkeypatch.setattr(onnx_front_end, "FRAMES", 11)


def test_the_shapes_are_those_of_the_configuration(tmp_path: Path, waveform: NDArray[np.float32]) -> None:
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "model.onnx")
    features, logits = run(tmp_path / "model.onnx", waveform)
    assert features.shape == (CONFIG.frames(waveform.size), CONFIG.embed_dim)
    assert logits.shape == (CONFIG.frames(waveform.size), LABELS)
    head, bias = WEIGHTS["proj.weight"], WEIGHTS["proj.bias"]
    expected = features.astype(np.float64) @ head.T + bias
    np.testing.assert_allclose(logits, expected, atol=product_tolerance(features, head, bias), rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 11, 12, 22, 23, 90])
def test_chunks_change_nothing_but_rounding(tmp_path: Path, frames: int, request: pytest.FixtureRequest) -> None:
    waveform = np.random.default_rng(frames).standard_normal(CONFIG.samples(frames) + frames % 3).astype(np.float32)
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "whole.onnx")
    request.getfixturevalue("small_chunks")
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "parts.onnx")
    whole, parts = run(tmp_path / "whole.onnx", waveform), run(tmp_path / "parts.onnx", waveform)
    assert whole[0].shape[0] == frames
    tokens = frames + CONFIG.num_extra_tokens
    np.testing.assert_allclose(parts[0], whole[0], atol=feature_tolerance(CONFIG, tokens), rtol=0)
    of_logits = logit_tolerance(CONFIG, tokens, WEIGHTS["proj.weight"])
    np.testing.assert_allclose(parts[1], whole[1], atol=of_logits, rtol=0)


def test_int8_is_close_to_fp32_and_smaller(tmp_path: Path, waveform: NDArray[np.float32]) -> None:
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "fp32.onnx")
    torch = encoder.torch
    weights = {name: torch.from_numpy(values) for name, values in WEIGHTS.items()}
    reference = encoder.Encoder.from_weights(CONFIG, weights, device=torch.device("cpu"), dtype=torch.float32)
    means = input_means.input_means(reference, [waveform])
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "int8.onnx", means)
    fp32, int8 = run(tmp_path / "fp32.onnx", waveform)[0], run(tmp_path / "int8.onnx", waveform)[0]
    cosine = (fp32 * int8).sum(1) / np.linalg.norm(fp32, axis=1) / np.linalg.norm(int8, axis=1)
    assert 0.99 < cosine.min() < 0.999999
    assert (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "fp32.onnx").stat().st_size


def test_large_weights_are_stored_in_a_new_file_beside_the_graph(
    tmp_path: Path,
    waveform: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "inside.onnx")
    assert not (tmp_path / "inside.onnx.data").exists()
    monkeypatch.setattr(onnx_graph, "EMBED_LIMIT", 1024)
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "model.onnx")
    size = (tmp_path / "model.onnx.data").stat().st_size
    onnx_graph.write_onnx(CONFIG, WEIGHTS, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size == size > 0
    np.testing.assert_array_equal(run(tmp_path / "model.onnx", waveform)[0], run(tmp_path / "inside.onnx", waveform)[0])
