from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from loadtests.bench import bench_models
from loadtests.common.hub_checkpoints import model_conf
from service.model.config import ModelConfig
from service.model.manifest import WEIGHTS, Manifest
from service.model.store import EMBEDDED, StoredModel, find


@pytest.fixture
def embedded(tmp_path: Path) -> StoredModel:
    return find(EMBEDDED, cache=tmp_path)


def test_the_configuration_written_back_describes_the_same_encoder(embedded: StoredModel) -> None:
    config = embedded.manifest.config
    assert ModelConfig.from_hub(bench_models.hub_conf(config)) == config


def test_every_dimension_is_written_back() -> None:
    config = ModelConfig.from_hub(model_conf(scale_per_layer=True, scale_per_head=False, num_extra_tokens=3))
    assert ModelConfig.from_hub(bench_models.hub_conf(config)) == config


@pytest.mark.torch
def test_the_embedded_model_is_written_back_unchanged(embedded: StoredModel, tmp_path: Path) -> None:
    from service.model.checkpoint import load_hub_directory

    bench_models.write_embedded(embedded.directory, tmp_path / "hub")
    found = load_hub_directory(tmp_path / "hub")
    assert found.labels == embedded.manifest.labels
    stored = load_file(embedded.directory / WEIGHTS)
    assert found.weights.keys() == stored.keys()
    for name, values in stored.items():
        np.testing.assert_array_equal(found.weights[name], values.astype(np.float32), name)


@pytest.mark.torch
def test_a_model_is_made_once(tmp_path: Path) -> None:
    made = bench_models.bench_model("tiny", tmp_path)
    written = (made.hub / "model.pt").stat().st_mtime_ns
    assert bench_models.bench_model("tiny", tmp_path) == made
    assert (made.hub / "model.pt").stat().st_mtime_ns == written
    assert made.config == Manifest.read(made.prepared).config
