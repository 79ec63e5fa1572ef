from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from loadtests.common.hub_checkpoints import LABELS, make_weights, model_conf, write_hub_directory
from service.errors import CheckpointInvalid, ModelNotFound
from service.model.config import ModelConfig

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402

from service.model.checkpoint import load_hub_directory, parse_yaml  # noqa: E402

CONF = model_conf()
CONFIG = ModelConfig.from_hub(CONF)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    write_hub_directory(tmp_path, CONF, make_weights(CONFIG, len(LABELS)))
    return tmp_path


def rewrite(hub: Path, **tensors: Any) -> None:
    """Replace weights by name (a double underscore stands for a dot); None removes one."""
    state = torch.load(hub / "model.pt", weights_only=True)["model"]
    for name, value in tensors.items():
        state[name.replace("__", ".")] = value
    torch.save({"model": {name: value for name, value in state.items() if value is not None}}, hub / "model.pt")


def test_weights_of_inference_are_loaded_and_no_others(hub: Path) -> None:
    checkpoint = load_hub_directory(hub)
    expected = make_weights(CONFIG, len(LABELS))
    assert checkpoint.config == CONFIG
    assert checkpoint.labels == LABELS
    assert not checkpoint.half
    assert checkpoint.weights.keys() == expected.keys()
    assert all(np.array_equal(checkpoint.weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("entries", [("model",), ("state_dict",), ("model_state_dict",), ("state_dict", "model"), ()])
@pytest.mark.parametrize("prefix", ["d2v_model.", ""])
def test_wrappings_and_prefixes(hub: Path, entries: tuple[str, ...], prefix: str) -> None:
    state: Any = torch.load(hub / "model.pt", weights_only=True)["model"]
    state = {name.replace("d2v_model.", prefix): value for name, value in state.items()}
    for entry in reversed(entries):
        state = {entry: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(state, hub / "model.pt")
    assert len(load_hub_directory(hub).weights) == len(make_weights(CONFIG, len(LABELS)))


def test_half_precision_is_converted_and_recorded(tmp_path: Path) -> None:
    weights = make_weights(CONFIG, len(LABELS))
    write_hub_directory(tmp_path, CONF, weights, half=True)
    checkpoint = load_hub_directory(tmp_path)
    assert checkpoint.half
    name = "blocks.0.attn.qkv.weight"
    assert checkpoint.weights[name].dtype == np.float32
    assert np.array_equal(checkpoint.weights[name], weights[name].astype(np.float16))


def test_the_old_format_of_torch_is_read(hub: Path) -> None:
    state = torch.load(hub / "model.pt", weights_only=True)
    torch.save(state, hub / "model.pt", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(hub / "model.pt")
    assert load_hub_directory(hub).labels == LABELS


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("new_format", [True, False])
def test_nothing_is_executed(hub: Path, new_format: bool) -> None:
    target = hub / "executed"
    torch.save({"model": {}, "extra": Malicious(target)}, hub / "model.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointInvalid, match="more than tensors"):
        load_hub_directory(hub)
    assert not target.exists()


@pytest.mark.parametrize("size", [0, 3, 100, 5000, -20])
def test_a_damaged_file(hub: Path, size: int) -> None:
    data = (hub / "model.pt").read_bytes()
    (hub / "model.pt").write_bytes(data[:size])
    with pytest.raises(CheckpointInvalid, match="damaged"):
        load_hub_directory(hub)


def test_no_weights_by_name(hub: Path) -> None:
    torch.save([1, 2], hub / "model.pt")
    with pytest.raises(CheckpointInvalid, match="no weights by name"):
        load_hub_directory(hub)


def test_a_feature_extractor_is_refused(hub: Path) -> None:
    rewrite(hub, proj__weight=None, proj__bias=None)
    with pytest.raises(CheckpointInvalid, match="no head"):
        load_hub_directory(hub)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d2v_model__blocks__1__attn__proj__bias", None, r"no weight blocks\.1\.attn\.proj\.bias"),
        ("d2v_model__blocks__1__attn__proj__bias", [0.0] * 64, r"no weight blocks\.1\.attn\.proj\.bias"),
        ("d2v_model__blocks__1__norm1__weight", torch.ones(3), r"norm1\.weight has shape \[3\]; expected \[64\]"),
        ("proj__weight", torch.ones(5, 64), r"proj\.weight has shape \[5, 64\]; expected \[9, 64\]"),
        ("proj__bias", torch.full((9,), float("nan")), r"proj\.bias has values that are not finite"),
        ("proj__bias", torch.ones(9, dtype=torch.int64), r"proj\.bias is not a plain array"),
        ("proj__bias", torch.ones(9, dtype=torch.complex64), r"proj\.bias is not a plain array"),
        ("proj__bias", torch.ones(1).expand(9), r"proj\.bias is not a plain array"),
        ("proj__weight", torch.ones(9, 64).to_sparse(), r"more than tensors|proj\.weight is not a plain array"),
        ("proj__bias", torch.ones(9, device="meta"), r"proj\.bias is not a plain array"),
    ],
)
def test_bad_weights_are_named(hub: Path, name: str, value: Any, message: str) -> None:
    rewrite(hub, **{name: value})
    with pytest.raises(CheckpointInvalid, match=message):
        load_hub_directory(hub)


def test_labels_and_head_must_agree(hub: Path) -> None:
    (hub / "tokens.txt").write_text("angry\nsad", "utf-8")
    with pytest.raises(CheckpointInvalid, match=r"proj\.weight has shape \[9, 64\]; expected \[2, 64\]"):
        load_hub_directory(hub)


@pytest.mark.parametrize("name", ["config.yaml", "tokens.txt", "model.pt"])
def test_a_missing_file_is_named(hub: Path, name: str) -> None:
    (hub / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        load_hub_directory(hub)


def test_file_names_in_configuration_json_are_not_followed(hub: Path) -> None:
    (hub / "configuration.json").write_text('{"file_path_metas": {"init_param": "../../../etc/passwd"}}')
    assert load_hub_directory(hub).labels == LABELS


@pytest.mark.parametrize("name", ["config.yaml", "tokens.txt"])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x: 1\n" * 100_000])
def test_files_that_are_not_short_utf8_text(hub: Path, name: str, content: bytes) -> None:
    (hub / name).write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=name):
        load_hub_directory(hub)


@pytest.mark.parametrize(
    "document", [{"model": "Paraformer"}, {"model": "Emotion2vec"}, {"model": "Emotion2vec", "model_conf": 3}]
)
def test_other_configurations(hub: Path, document: dict[str, Any]) -> None:
    (hub / "config.yaml").write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(CheckpointInvalid, match=r"Paraformer|model_conf"):
        load_hub_directory(hub)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: &x {y: 1}\nb:\n  <<: *x",
        "a: !!python/object/apply:os.system ['id']",
        "[" * 50_000,
        "{" * 5000,
        "a: 2001-99-99",
        "a: " + "9" * 5000,
        "a: 1\n b: 2",
        "\x00",
        "- 1",
        "",
        "text",
    ],
)
def test_yaml_of_anything_but_plain_values(text: str) -> None:
    with pytest.raises(CheckpointInvalid, match=r"config\.yaml"):
        parse_yaml(text)
