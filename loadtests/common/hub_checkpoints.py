"""Checkpoints in hub layout with seeded random weights, which FunASR and this project both load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from loadtests.common.audio_clips import read_clip
from loadtests.common.paths import EMODB
from service.model.config import ModelConfig
from service.model.normalize import normalized
from service.model.synthetic_speech import speech_like
from service.results import Floats

LABELS = (
    "生气/angry",
    "unuse_0",
    "恐惧/fearful",
    "开心/happy",
    "中立/neutral",
    "其他/other",
    "难过/sad",
    "unuse_1",
    "<unk>",
)
"""Nine outputs, two of them unused, as in the published model with fewer emotions."""

_AUDIO = "modality_encoders.AUDIO."


def emodb_clips() -> list[Floats]:
    """The bundled clips of EmoDB: float32 (time,) at 16 kHz."""
    return [read_clip(path) for path in sorted(EMODB.glob("*.flac"))]


def model_conf(
    *,
    embed_dim: int = 64,
    num_heads: int = 4,
    prenet_depth: int = 1,
    depth: int = 2,
    channels: int = 32,
    conv_pos_width: int = 95,
    conv_pos_depth: int = 5,
    conv_pos_groups: int = 16,
    num_extra_tokens: int = 10,
    scale_per_layer: bool = False,
    scale_per_head: bool = True,
    decoder: bool = True,
) -> dict[str, Any]:
    """The section `model_conf` of a hub's config.yaml, with everything that FunASR's class needs."""
    decoder_conf = {
        "add_positions_all": False,
        "add_positions_masked": False,
        "decoder_dim": 32,
        "decoder_groups": 8,
        "decoder_kernel": 7,
        "decoder_layers": 2,
        "decoder_residual": True,
        "input_dropout": 0.1,
        "projection_layers": 1,
        "projection_ratio": 2.0,
    }
    audio = {
        "type": "AUDIO",
        "alibi_max_pos": None,
        "alibi_scale": 1.0,
        "conv_pos_depth": conv_pos_depth,
        "conv_pos_groups": conv_pos_groups,
        "conv_pos_pre_ln": False,
        "conv_pos_width": conv_pos_width,
        "decoder": decoder_conf if decoder else None,
        "end_drop_path_rate": 0.0,
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": f"[({channels}, 10, 5)] + [({channels}, 3, 2)] * 4 + [({channels},2,2)] * 2",
        "init_extra_token_zero": True,
        "learned_alibi": False,
        "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": scale_per_head,
        "learned_alibi_scale_per_layer": scale_per_layer,
        "local_grad_mult": 1.0,
        "mask_prob": 0.5,
        "model_depth": depth,
        "num_alibi_heads": num_heads,
        "num_extra_tokens": num_extra_tokens,
        "prenet_depth": prenet_depth,
        "prenet_dropout": 0.1,
        "prenet_layerdrop": 0.05,
        "start_drop_path_rate": 0.0,
        "use_alibi_encoder": True,
    }
    return {
        "activation_dropout": 0.0,
        "attention_dropout": 0.1,
        "average_top_k_layers": 2,
        "depth": depth,
        "dropout_input": 0.0,
        "embed_dim": embed_dim,
        "encoder_dropout": 0.1,
        "end_drop_path_rate": 0.0,
        "end_of_block_targets": False,
        "layer_norm_first": False,
        "layerdrop": 0.05,
        "loss_beta": 0.0,
        "loss_scale": None,
        "mlp_ratio": 4.0,
        "modalities": {"_name": None, "audio": audio},
        "norm_affine": True,
        "norm_eps": 1e-5,
        "normalize": True,
        "num_heads": num_heads,
        "post_mlp_drop": 0.1,
        "start_drop_path_rate": 0.0,
        "supported_modality": "AUDIO",
    }


def odd_model_conf(*, decoder: bool = True) -> dict[str, Any]:
    """Dimensions unlike the published ones: twelve heads, an even kernel, attention scales by layer."""
    return model_conf(
        embed_dim=48,
        num_heads=12,
        prenet_depth=2,
        depth=1,
        channels=24,
        conv_pos_width=48,
        conv_pos_depth=3,
        conv_pos_groups=8,
        num_extra_tokens=3,
        scale_per_layer=True,
        decoder=decoder,
    )


def make_weights(config: ModelConfig, labels: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random weights by name, scaled by fan-in; some attention scales are negative, which the model clamps to zero.

    Needs torch.
    """
    from service.model.network.encoder import expected_shapes

    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_shapes(config, labels).items():
        if name.endswith("alibi_scale"):
            values = rng.uniform(-0.2, 1.5, shape)
        elif len(shape) == 1:
            is_norm_weight = name.endswith(".weight")
            values = rng.normal(float(is_norm_weight), 0.1, shape)
        else:
            values = rng.normal(0, 1 / math.sqrt(math.prod(shape[1:])), shape)
        weights[name] = values.astype(np.float32)
    return weights


def spread_labels(
    config: ModelConfig, weights: dict[str, NDArray[np.float32]], clips: Sequence[Floats], seed: int = 0
) -> None:
    """Centre and scale the head on `clips`, so that their labels differ and a comparison can fail. Needs torch."""
    import torch

    from service.model.network.encoder import Encoder

    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    encoder = Encoder.from_weights(config, tensors, device=torch.device("cpu"), dtype=torch.float32)
    with torch.inference_mode():
        embeddings = np.stack([encoder(torch.from_numpy(normalized(c))[None])[0][0].mean(0).numpy() for c in clips])
    head = np.random.default_rng(seed).normal(size=weights["proj.weight"].shape)
    logits = (embeddings - embeddings.mean(axis=0)) @ head.T
    head = head / logits.std(axis=0, keepdims=True).T * 1.5
    weights["proj.weight"] = head.astype(np.float32)
    weights["proj.bias"] = -(weights["proj.weight"] @ embeddings.mean(axis=0))


def write_hub_directory(
    directory: Path,
    conf: Mapping[str, Any],
    weights: Mapping[str, NDArray[np.float32]],
    labels: Sequence[str] = LABELS,
    *,
    half: bool = False,
) -> None:
    """Write config.yaml, tokens.txt, configuration.json and model.pt, weights used only in pretraining included.

    Needs torch.
    """
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model": "Emotion2vec",
        "model_conf": dict(conf),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "scope_map": ["d2v_model.", "none"],
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    (directory / "tokens.txt").write_text("\n".join(labels), encoding="utf-8")
    (directory / "configuration.json").write_text(
        '{"model": {"type": "funasr"}, "file_path_metas": {"init_param": "model.pt", "config": "config.yaml", '
        '"tokenizer_conf": {"token_list": "tokens.txt"}}}'
    )
    named = {name if name.startswith("proj.") else f"d2v_model.{name}": w for name, w in weights.items()}
    named |= _pretraining(conf)
    dtype = torch.float16 if half else torch.float32
    state = {name: torch.from_numpy(values).to(dtype) for name, values in named.items()}
    torch.save({"model": state}, directory / "model.pt")


def default_clips() -> list[Floats]:
    """Clips for `spread_labels`: recorded ones, and synthetic ones with other voices."""
    return emodb_clips() + [speech_like(1.5, seed) for seed in range(6)]


def _pretraining(conf: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Weights that inference does not use: the audio decoder, the teacher, another modality."""
    rng = np.random.default_rng(99)
    shapes: dict[str, tuple[int, ...]] = {
        "d2v_model._ema.blocks.0.norm1.weight": (8,),
        "d2v_model.modality_encoders.TEXT.alibi_scale": (1, 1, 1, 1, 1),
    }
    if decoder := conf["modalities"]["audio"]["decoder"]:
        width, groups = decoder["decoder_dim"], decoder["decoder_groups"]
        inputs = conf["embed_dim"]
        prefix = f"d2v_model.{_AUDIO}decoder."
        for layer in range(decoder["decoder_layers"]):
            shapes[f"{prefix}blocks.{layer}.0.weight"] = (width, inputs // groups, decoder["decoder_kernel"])
            shapes[f"{prefix}blocks.{layer}.0.bias"] = (width,)
            inputs = width
        shapes[f"{prefix}proj.weight"] = (conf["embed_dim"], width)
        shapes[f"{prefix}proj.bias"] = (conf["embed_dim"],)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
