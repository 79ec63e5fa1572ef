from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from loadtests.common.hub_checkpoints import LABELS, make_weights, model_conf, write_hub_directory
from service.data import SPEECH
from service.errors import CheckpointInvalid, ModelNotFound, SettingsInvalid
from service.model.config import ModelConfig
from service.model.manifest import Manifest
from service.model.onnx.inputs import Inputs, lay_out
from service.results import Floats

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from service.model import prepare as module  # noqa: E402
from service.model.onnx.graph import write_onnx  # noqa: E402
from service.model.prepare import Difference, prepare  # noqa: E402

CONF = model_conf(prenet_depth=1, depth=1)
CONFIG = ModelConfig.from_hub(CONF)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hub")
    write_hub_directory(directory, CONF, make_weights(CONFIG, len(LABELS)))
    return directory


def test_the_prepared_model_is_complete_and_described_by_its_manifest(hub: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    manifest = prepare(hub, target, id="iic/small", origin="modelscope:iic/small", demonstration=True)
    assert manifest == Manifest.read(target)
    assert (manifest.id, manifest.source, manifest.demonstration) == ("iic/small", "modelscope:iic/small", True)
    assert manifest.config == CONFIG
    assert manifest.labels == LABELS
    assert set(manifest.files) == {"model.safetensors", "model.fp32.onnx", "model.int8.onnx"}
    assert {"emotion2vec-service", "torch", "onnx"} <= set(manifest.tools)
    manifest.verify(target)
    weights = load_file(target / "model.safetensors")
    expected = make_weights(CONFIG, len(LABELS))
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)


def test_files_are_readable_for_all_and_no_others_are_left(hub: Path, tmp_path: Path) -> None:
    prepare(hub, tmp_path / "model", id="small", int8=False)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o644}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "model.int8.onnx").exists()


def test_equal_checkpoints_have_equal_revisions(hub: Path, tmp_path: Path) -> None:
    first = prepare(hub, tmp_path / "a", id="a", int8=False)
    assert first.revision == prepare(hub, tmp_path / "b", id="b", int8=False).revision
    other = tmp_path / "hub"
    write_hub_directory(other, CONF, make_weights(CONFIG, len(LABELS), seed=1))
    assert first.revision != prepare(other, tmp_path / "c", id="c", int8=False).revision


def test_half_precision_stays_half_on_disk(tmp_path: Path) -> None:
    write_hub_directory(tmp_path / "hub", CONF, make_weights(CONFIG, len(LABELS)), half=True)
    prepare(tmp_path / "hub", tmp_path / "model", id="small", int8=False)
    assert {w.dtype for w in load_file(tmp_path / "model" / "model.safetensors").values()} == {np.dtype(np.float16)}


def test_a_card_is_copied_and_may_be_edited(hub: Path, tmp_path: Path) -> None:
    write_hub_directory(tmp_path / "hub", CONF, make_weights(CONFIG, len(LABELS)))
    (tmp_path / "hub" / "CARD.md").write_text("A small model.")
    manifest = prepare(tmp_path / "hub", tmp_path / "model", id="small", int8=False)
    (tmp_path / "model" / "CARD.md").write_text("A small model, and what it is for.")
    assert Manifest.read(tmp_path / "model") == manifest


def test_an_older_prepared_model_is_replaced(hub: Path, tmp_path: Path) -> None:
    prepare(hub, tmp_path / "model", id="old", int8=True)
    assert prepare(hub, tmp_path / "model", id="new", int8=False) == Manifest.read(tmp_path / "model")
    assert not (tmp_path / "model" / "model.int8.onnx").exists()


def test_other_directories_are_not_overwritten(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsInvalid, match="will not be overwritten"):
        prepare(hub, tmp_path, id="small")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b/c", "-x"])
def test_impossible_names(hub: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be called"):
        prepare(hub, tmp_path / "model", id=name)


def test_a_failure_leaves_no_files_and_keeps_the_earlier_model(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepare(hub, tmp_path / "model", id="old", int8=False)
    with pytest.raises(ModelNotFound):
        prepare(tmp_path, tmp_path / "model", id="new")
    monkeypatch.setattr(module, "_compare", lambda *_: Difference(0.0, 1e-3, 1.0, 1.0))
    with pytest.raises(CheckpointInvalid, match="disagrees with the encoder"):
        prepare(hub, tmp_path / "model", id="new")
    assert Manifest.read(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_graph_of_other_weights_is_refused(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(config: ModelConfig, weights: dict[str, np.ndarray], path: Path) -> None:
        changed = {**weights, "blocks.0.mlp.fc2.bias": -weights["blocks.0.mlp.fc2.bias"]}
        write_onnx(config, changed, path)

    monkeypatch.setattr(module, "write_onnx", wrong)
    with pytest.raises(CheckpointInvalid, match="disagrees with the encoder"):
        prepare(hub, tmp_path / "model", id="small", int8=False)


def test_a_graph_that_mixes_up_clips_is_refused(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mixed_up(waveforms: Sequence[Floats], config: ModelConfig) -> Inputs:
        inputs = lay_out(waveforms, config)
        return replace(inputs, frames=inputs.frames[::-1])  # changes nothing for a single clip

    monkeypatch.setattr(module, "lay_out", mixed_up)
    with pytest.raises(CheckpointInvalid, match="disagrees with the encoder"):
        prepare(hub, tmp_path / "model", id="small", int8=False)


@pytest.mark.parametrize("result", [(float("nan"), 0.0, 1.0), (0.0, float("nan"), 1.0)])
def test_results_that_are_nan_are_refused(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: tuple[float, float, float]
) -> None:
    monkeypatch.setattr(module, "_compare", lambda *_: Difference(*result, 1.0))
    with pytest.raises(CheckpointInvalid, match="disagrees with the encoder"):
        prepare(hub, tmp_path / "model", id="small", int8=False)


def test_an_inaccurate_int8_graph_is_refused(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_compare", lambda *_: Difference(0.0, 0.0, 0.5, 1.0))
    with pytest.raises(CheckpointInvalid, match="INT8"):
        prepare(hub, tmp_path / "model", id="small")


def test_the_error_of_int8_is_measured_on_real_speech(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = prepare(hub, tmp_path / "model", id="small").int8_error
    assert error is not None
    assert error.clips == len(list(SPEECH.glob("*.opus"))) == 24
    assert 0 < error.score_difference < 0.05
    assert error.equal_labels > 0.8
    assert prepare(hub, tmp_path / "model", id="small", int8=False).int8_error is None
    monkeypatch.setattr(module, "_compare", lambda *_: Difference(0.00002, 0.0, 1.0, 0.96))
    caplog.clear()
    prepare(hub, tmp_path / "model", id="small")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "the INT8 graph: scores differ from FP32 by up to 0.0000, 96% of 24 labels are the same"
    ]


def test_preparing_concurrently_leaves_one_complete_model(hub: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def run(name: str) -> None:
        try:
            prepare(hub, tmp_path / "model", id=name, int8=False)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"model-{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Manifest.read(tmp_path / "model").id.startswith("model-")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
