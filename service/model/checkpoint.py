"""Reads a checkpoint in hub layout: `config.yaml`, `tokens.txt` and `model.pt`, all untrusted input.

FunASR evaluates a string of the configuration as Python and opens the files that `configuration.json` names; here the
string is matched against a pattern, and the file names are fixed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from service.errors import CheckpointInvalid, ModelNotFound
from service.model.config import ModelConfig
from service.model.hub import FILES
from service.model.labels import parse_tokens
from service.model.network.encoder import check_shapes, expected_shapes

CONFIG, TOKENS, CHECKPOINT = FILES

_MAX_TEXT = 64 * 1024
_MAX_DEPTH = 20
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_ENTRIES = ("state_dict", "model_state_dict", "model")
_PREFIX = "d2v_model."


class Checkpoint(NamedTuple):
    """The contents of a hub directory.

    Attributes:
        config: the encoder's dimensions.
        labels: in the order of the head's outputs.
        weights: FP32, by the checkpoint's names without `d2v_model.`, the head as `proj.*`.
        half: whether every weight was stored in FP16, so that storing them in FP16 again loses nothing.
    """

    config: ModelConfig
    labels: tuple[str, ...]
    weights: dict[str, NDArray[np.float32]]
    half: bool


def load_hub_directory(directory: Path) -> Checkpoint:
    """Read and check a directory in hub layout.

    Raises:
        ModelNotFound: if a file is missing.
        CheckpointInvalid: if a file is malformed, needs a feature that the encoder lacks, or lacks weights.
    """
    for name in FILES:
        if not (directory / name).is_file():
            raise ModelNotFound(f"{directory} has no {name}; a model directory holds {', '.join(FILES)}")
    document = parse_yaml(_read_text(directory / CONFIG))
    if document.get("model") != "Emotion2vec":
        raise CheckpointInvalid(f"{CONFIG} describes model {document.get('model')!r:.100}; expected 'Emotion2vec'")
    model_conf = document.get("model_conf")
    if not isinstance(model_conf, Mapping):
        raise CheckpointInvalid(f"{CONFIG} has no section model_conf")
    config = ModelConfig.from_hub(model_conf)
    labels = parse_tokens(_read_text(directory / TOKENS))
    tensors = _select(_load_tensors(directory / CHECKPOINT), config, len(labels))
    return Checkpoint(
        config=config,
        labels=labels,
        weights={name: _to_numpy(name, tensor) for name, tensor in tensors.items()},
        half=all(tensor.dtype == torch.float16 for tensor in tensors.values()),
    )


def parse_yaml(text: str) -> Mapping[str, Any]:
    """Read a YAML mapping of plain values.

    Anchors are refused, since a few lines of them can expand to gigabytes, and so is deep nesting, on which PyYAML
    spends minutes.

    Raises:
        CheckpointInvalid: if the text is anything else.
    """
    try:
        depth = 0
        for token in yaml.scan(text):
            if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
                raise CheckpointInvalid(f"{CONFIG} uses YAML anchors, which are not supported")
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > _MAX_DEPTH:
                raise CheckpointInvalid(f"{CONFIG} is nested more than {_MAX_DEPTH} levels deep")
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointInvalid(f"{CONFIG} is not valid YAML of plain values") from error
    if not isinstance(document, Mapping):
        raise CheckpointInvalid(f"{CONFIG} is not a mapping")
    return document


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MAX_TEXT + 1)
    if len(data) > _MAX_TEXT:
        raise CheckpointInvalid(f"{path.name} is larger than {_MAX_TEXT} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointInvalid(f"{path.name} is not UTF-8 text") from error


def _load_tensors(path: Path) -> dict[str, Any]:
    """The innermost dict of a checkpoint, unwrapped as FunASR does. Only tensors and plain values are unpickled."""
    try:
        # Only the format of torch 1.6 and later can be memory-mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile file makes torch raise nearly anything
        raise CheckpointInvalid(
            f"{path.name} is damaged, or holds more than tensors and plain values, which is not loaded"
        ) from error
    for entry in _ENTRIES:
        if isinstance(state, dict) and entry in state:
            state = state[entry]
    if not isinstance(state, dict):
        raise CheckpointInvalid(f"{path.name} holds no weights by name")
    return state


def _select(state: Mapping[str, Any], config: ModelConfig, labels: int) -> dict[str, torch.Tensor]:
    """The weights that inference uses, by name without prefix; those used in pretraining only are left out."""
    found: dict[str, torch.Tensor] = {}
    for name in expected_shapes(config, labels):
        value = state.get(_PREFIX + name, state.get(name))
        if isinstance(value, torch.Tensor):
            found[name] = value
    if "proj.weight" not in found:
        raise CheckpointInvalid(
            f"{CHECKPOINT} has no head (proj.weight): it is a feature extractor, which classifies no emotions; "
            "use one of the emotion2vec_plus models or emotion2vec_base_finetuned"
        )
    check_shapes(config, labels, found)
    return found


def _to_numpy(name: str, tensor: torch.Tensor) -> NDArray[np.float32]:
    # With a stride of zero, a small file could expand to more memory than there is.
    dense = tensor.layout == torch.strided and tensor.is_contiguous() and tensor.device.type == "cpu"
    if not (dense and tensor.is_floating_point()):
        raise CheckpointInvalid(f"the checkpoint's weight {name} is not a plain array of floating-point numbers")
    values: NDArray[np.float32] = tensor.detach().to(torch.float32).numpy()
    if not np.isfinite(values).all():
        raise CheckpointInvalid(f"the checkpoint's weight {name} has values that are not finite")
    return values
