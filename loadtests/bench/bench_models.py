"""The models of the benchmark, each in hub layout for FunASR and prepared for the service.

    python -m loadtests.bench.bench_models large DIRECTORY

`large` has the dimensions of emotion2vec+ large, from its published `config.yaml`, and seeded random weights: speed and
memory do not depend on the values of weights. `tiny` is the embedded model, written back into hub layout.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from safetensors.numpy import load_file

from loadtests.common import hub_checkpoints
from loadtests.common.hub_checkpoints import default_clips, make_weights, spread_labels, write_hub_directory
from loadtests.common.paths import DATA, ROOT
from service.model import manifest
from service.model.config import ModelConfig
from service.model.labels import parse_tokens
from service.model.store import EMBEDDED, find
from service.settings.settings import Settings

ModelName = Literal["large", "tiny"]


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One model in both formats.

    Attributes:
        hub: directory in hub layout, for FunASR.
        prepared: directory with the same weights, prepared for the service.
    """

    hub: Path
    prepared: Path

    @property
    def config(self) -> ModelConfig:
        """The encoder's dimensions."""
        return manifest.Manifest.read(self.prepared).config


def bench_model(name: ModelName, cache: Path) -> BenchModel:
    """A model, made first if it is not in the cache directory; needs the extra `[torch]`.

    The directory's name contains a checksum of the code that makes the model, so that a change of it makes a new one.

    Args:
        name: which model.
        cache: the cache directory.
    """
    embedded = find(EMBEDDED, cache=cache).directory
    directory = cache / f"{name}-{_checksum(name, embedded)}"
    hub = directory / "hub"
    prepared = embedded if name == "tiny" else directory / "prepared"
    if not (hub / "configuration.json").is_file():
        write_embedded(embedded, hub) if name == "tiny" else write_large(hub)
    if not (prepared / manifest.MANIFEST).is_file():
        from service.model.prepare import prepare

        prepare(hub, prepared, id="plus_large-random")
    return BenchModel(hub, prepared)


def write_large(directory: Path, seed: int = 0) -> None:
    """Write a checkpoint of the published dimensions, with a head that gives recorded clips different labels."""
    conf = _published()
    config = ModelConfig.from_hub(conf)
    labels = parse_tokens((DATA / "tokens.txt").read_text(encoding="utf-8"))
    weights = make_weights(config, len(labels), seed)
    spread_labels(config, weights, default_clips(), seed)
    write_hub_directory(directory, conf, weights, labels)


def write_embedded(prepared: Path, directory: Path) -> None:
    """Write a prepared model back into hub layout."""
    description = manifest.Manifest.read(prepared)
    stored = load_file(prepared / manifest.WEIGHTS)
    weights = {name: values.astype(np.float32) for name, values in stored.items()}
    write_hub_directory(directory, hub_conf(description.config), weights, description.labels)


def hub_conf(config: ModelConfig) -> dict[str, Any]:
    """The section `model_conf` of a hub's `config.yaml` for an encoder of these dimensions, without a decoder."""
    conf = copy.deepcopy(_published())
    conf |= {
        "embed_dim": config.embed_dim,
        "num_heads": config.num_heads,
        "depth": config.depth,
        "mlp_ratio": config.mlp_dim / config.embed_dim,
        "norm_eps": config.norm_eps,
        "normalize": config.normalize,
    }
    conf["modalities"]["audio"] |= {
        "feature_encoder_spec": " + ".join(
            f"[({layer.channels}, {layer.kernel}, {layer.stride})]" for layer in config.conv_layers
        ),
        "num_alibi_heads": config.num_heads,
        "model_depth": config.depth,
        "prenet_depth": config.prenet_depth,
        "conv_pos_depth": config.conv_pos_depth,
        "conv_pos_width": config.conv_pos_depth * config.conv_pos_kernel,
        "conv_pos_groups": config.conv_pos_groups,
        "num_extra_tokens": config.num_extra_tokens,
        "learned_alibi_scale_per_layer": config.alibi_scale_per_layer,
        "learned_alibi_scale_per_head": config.alibi_scale_per_head,
        "decoder": None,
    }
    return conf


def _published() -> dict[str, Any]:
    text = (DATA / "config.yaml").read_text(encoding="utf-8")
    conf: dict[str, Any] = yaml.safe_load(text)["model_conf"]
    return conf


def _checksum(name: ModelName, embedded: Path) -> str:
    """SHA-256, shortened, of the files that a model is made from."""
    sources = [Path(__file__), *sorted(DATA.iterdir()), Path(hub_checkpoints.__file__)]
    sources += [embedded / manifest.WEIGHTS] if name == "tiny" else sorted((ROOT / "service" / "model").glob("*.py"))
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def default_cache() -> Path:
    """The default cache directory for models of the benchmark."""
    return Settings().cache_dir / "bench"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a model for the benchmark.")
    parser.add_argument("name", choices=get_args(ModelName))
    parser.add_argument("cache", type=Path, nargs="?", default=default_cache())
    arguments = parser.parse_args()
    print(bench_model(arguments.name, arguments.cache))
