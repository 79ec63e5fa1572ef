from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loadtests.common.hub_checkpoints import LABELS
from service.errors import CheckpointInvalid, SettingsInvalid
from service.model.manifest import WEIGHTS, Manifest
from service.model.synthetic_speech import speech_like
from service.results import SAMPLING_RATE
from tests.inference.small_model import prepare_small

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from service.inference.backends import precision  # noqa: E402
from service.inference.backends.precision import load_encoder, long_clip, score_difference, short_clips  # noqa: E402
from service.model.network.encoder import Encoder  # noqa: E402

CPU = torch.device("cpu")
EVERY = range(len(LABELS))
SMALL_HEAD = {"proj.weight": 1 / 16}
"""Scaling by which BF16 is accurate enough on any processor; see `tests.rounding.half_precision_tolerance`."""


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute takes long on the CPU; here the clip only has to be longer than the others."""
    monkeypatch.setattr(precision, "_LONG_SECONDS", 11.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    directory, manifest = prepare_small(tmp_path_factory.mktemp("precision"))
    return directory / WEIGHTS, manifest


def changed(prepared: tuple[Path, Manifest], path: Path, scale: dict[str, float]) -> Path:
    """The same weights, some of them scaled."""
    weights = load_file(prepared[0])
    for name, factor in scale.items():
        weights[name] = weights[name] * factor
    save_file(weights, path)
    return path


def test_check_clips_are_real_and_synthetic_speech_of_the_length_asked_for() -> None:
    clips = short_clips()
    assert len(clips) >= 10
    assert all(1 < clip.size / SAMPLING_RATE < 10 and clip.dtype == np.float32 for clip in clips)
    assert any(np.array_equal(clip, speech_like(4.0, 0)) for clip in clips)
    assert long_clip(60.0).shape == (60 * SAMPLING_RATE,)
    assert not np.array_equal(long_clip(1.0), long_clip(1.0, seed=1))


@pytest.mark.parametrize(("broken", "expected"), [((), "fp16"), (("fp16",), "bf16"), (("fp16", "bf16"), "fp32")])
def test_auto_takes_the_first_accurate_precision_and_logs_the_others(
    prepared: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: tuple[str, ...],
    expected: str,
) -> None:
    dtypes = {precision.DTYPES[name] for name in broken}

    def difference(reference: object, encoder: Encoder, config: object, answered: Sequence[int]) -> float:
        assert list(answered) == [0, 2, 3, 4, 5, 6, 8], "labels that are never answered do not count"
        return float("nan") if next(encoder.blocks.parameters()).dtype in dtypes else 1e-3

    monkeypatch.setattr(precision, "score_difference", difference)
    # `meta` stands for a device that is not the CPU.
    assert load_encoder(*prepared, torch.device("meta"), "auto")[1] == expected
    for name in broken:
        assert f"{name} changes the scores of small by nan" in caplog.text
        with pytest.raises(SettingsInvalid, match=name):
            load_encoder(*prepared, torch.device("meta"), name)  # type: ignore[arg-type] # a plain str
    assert ("runs in fp32" in caplog.text) == (expected == "fp32")


def test_scores_of_equal_encoders_agree_and_of_different_ones_do_not(prepared: tuple[Path, Manifest]) -> None:
    config = prepared[1].config
    encoder, other = (load_encoder(*prepared, CPU, "fp32")[0] for _ in range(2))
    assert score_difference(encoder, other, config, EVERY) < precision.TOLERANCE[torch.float32]
    other.proj = torch.nn.Linear(64, len(LABELS)).requires_grad_(False)
    assert score_difference(encoder, other, config, EVERY) > 1e-2


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_keeps_the_scores_of_a_sound_model(
    prepared: tuple[Path, Manifest], tmp_path: Path, dtype: str
) -> None:
    path = changed(prepared, tmp_path / WEIGHTS, SMALL_HEAD)
    encoder, name = load_encoder(path, prepared[1], CPU, dtype)  # type: ignore[arg-type] # a plain str
    assert name == dtype
    assert encoder.get_parameter("blocks.0.mlp.fc1.weight").dtype == precision.DTYPES[dtype]
    assert encoder.proj.weight.dtype == torch.float32


def test_a_model_that_overflows_in_fp16_is_refused(prepared: tuple[Path, Manifest], tmp_path: Path) -> None:
    mlp = "blocks.1.mlp"
    # The same function, but the hidden values overflow in FP16: infinity, and then NaN.
    scale = {f"{mlp}.fc1.weight": 1e5, f"{mlp}.fc1.bias": 1e5, f"{mlp}.fc2.weight": 1e-5, **SMALL_HEAD}
    path = changed(prepared, tmp_path / WEIGHTS, scale)
    with pytest.raises(SettingsInvalid, match="fp16 the scores of small differ by nan"):
        load_encoder(path, prepared[1], CPU, "fp16")
    assert load_encoder(path, prepared[1], CPU, "bf16")[1] == "bf16"


def test_an_overflow_in_padded_batches_or_long_clips_only_is_detected(
    prepared: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepared[1].config
    encoder, other = (load_encoder(*prepared, CPU, "fp32")[0] for _ in range(2))
    seen: list[tuple[int, bool]] = []
    original = Encoder.encode

    def encode(self: Encoder, waveforms: torch.Tensor, frames: torch.Tensor | None = None) -> object:
        found = original(self, waveforms, frames)
        if self is other:
            seen.append((waveforms.shape[0], waveforms.shape[1] >= 11 * SAMPLING_RATE))
            if seen[-1] == bad:
                found.embeddings[0, 0] = float("inf")
        return found

    monkeypatch.setattr(Encoder, "encode", encode)
    for bad in ((len(short_clips()), False), (1, True)):
        assert np.isnan(score_difference(encoder, other, config, EVERY))
        assert bad in seen


def test_weights_of_another_shape(prepared: tuple[Path, Manifest], tmp_path: Path) -> None:
    save_file({"proj.weight": torch.zeros(9, 64), "proj.bias": torch.zeros(9)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointInvalid, match="has no weight"):
        load_encoder(tmp_path / WEIGHTS, prepared[1], CPU, "auto")
