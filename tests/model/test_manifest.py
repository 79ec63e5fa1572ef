from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.common.hub_checkpoints import LABELS, model_conf
from service.errors import CheckpointInvalid
from service.model.config import ModelConfig
from service.model.manifest import MANIFEST, WEIGHTS, FileEntry, Manifest
from service.results import Int8Error


@pytest.fixture
def written(tmp_path: Path) -> Manifest:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    (tmp_path / "model.fp32.onnx").write_bytes(b"graph")
    (tmp_path / "model.int8.onnx").write_bytes(b"bytes")
    manifest = Manifest(
        id="iic/emotion2vec_plus_large",
        source="modelscope:iic/emotion2vec_plus_large",
        config=ModelConfig.from_hub(model_conf(scale_per_layer=True)),
        labels=LABELS,
        files={name: FileEntry.of(tmp_path / name) for name in (WEIGHTS, "model.fp32.onnx", "model.int8.onnx")},
        tools={"torch": "2.14.1"},
        created="2026-11-23T12:00:00+00:00",
        demonstration=True,
        int8_error=Int8Error(score_difference=0.005, equal_labels=1.0, clips=24),
    )
    manifest.write(tmp_path)
    return manifest


def edit(directory: Path, **changes: Any) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_a_manifest_is_read_as_written(tmp_path: Path, written: Manifest) -> None:
    assert Manifest.read(tmp_path) == written


def test_equal_weights_have_equal_revisions(tmp_path: Path, written: Manifest) -> None:
    assert written.revision == hashlib.sha256(b"weights").hexdigest()[:12]
    (tmp_path / WEIGHTS).write_bytes(b"others!")
    assert FileEntry.of(tmp_path / WEIGHTS).sha256[:12] != written.revision


def test_info(written: Manifest) -> None:
    assert written.info(backend="onnx", device="cpu", dtype="fp32").int8_error is None
    info = written.info(backend="onnx", device="cpu", dtype="int8")
    assert info.int8_error == Int8Error(0.005, 1.0, 24)
    assert (info.id, info.revision, info.backend, info.dtype) == (written.id, written.revision, "onnx", "int8")
    assert info.demonstration
    assert info.embedding_size == 64
    assert info.masked == {1, 7}
    assert (info.labels[0].en, info.labels[0].zh) == ("angry", "生气")
    assert (info.labels[8].en, info.labels[8].zh, info.labels[8].native) == ("unknown", "未知", "<unk>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "surprise"),
        ({"schema": "2"}, "another version"),
        ({"schema": 2}, "another version .* prepare the model again"),
        ({"schema": 4, "config": {}}, "another version"),
        ({"id": "../../etc"}, "id"),
        ({"id": 5}, "id"),
        ({"demonstration": "yes"}, "demonstration"),
        ({"labels": ["angry", "angry"]}, "angry"),
        ({"labels": []}, "no label"),
        ({"labels": ["a\nb"]}, "label 1"),
        ({"files": {}}, WEIGHTS),
        ({"files": {WEIGHTS: {"sha256": "0" * 64, "size": -1}}}, "size"),
        ({"files": {WEIGHTS: {"sha256": "xyz", "size": 7}}}, "sha256"),
        ({"files": {"../x": {"sha256": "0" * 64, "size": 7}}}, "x"),
        ({"config": {}}, "conv_layers"),
        ({"tools": {"torch": 2}}, "torch"),
        ({"int8_error": None}, "without its error"),
        ({"int8_error": {"score_difference": "small", "equal_labels": 1.0, "clips": 24}}, "score_difference"),
    ],
)
def test_invalid_manifests_are_refused(
    tmp_path: Path, written: Manifest, changes: dict[str, Any], message: str
) -> None:
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointInvalid, match=message):
        Manifest.read(tmp_path)


def test_impossible_dimensions_are_refused(tmp_path: Path, written: Manifest) -> None:
    config = json.loads((tmp_path / MANIFEST).read_text("utf-8"))["config"]
    edit(tmp_path, config={**config, "embed_dim": 63})
    with pytest.raises(CheckpointInvalid, match="embed_dim"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000, " " * 300_000 + "{}"])
def test_files_that_are_not_json_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(CheckpointInvalid, match=MANIFEST):
        Manifest.read(tmp_path)


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="cannot be read"):
        Manifest.read(tmp_path)


def test_a_file_of_another_size_is_detected_on_reading(tmp_path: Path, written: Manifest) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"weight")
    with pytest.raises(CheckpointInvalid, match=WEIGHTS):
        Manifest.read(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(CheckpointInvalid, match=WEIGHTS):
        Manifest.read(tmp_path)


def test_a_changed_byte_is_detected_on_verifying(tmp_path: Path, written: Manifest) -> None:
    written.verify(tmp_path)
    (tmp_path / "model.fp32.onnx").write_bytes(b"GRAPH")
    Manifest.read(tmp_path)
    with pytest.raises(CheckpointInvalid, match=r"model\.fp32\.onnx"):
        written.verify(tmp_path)
