"""The encoder in its published dimensions on a GPU, and Python programs in separate processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
import yaml

from service.model.config import ModelConfig
from service.model.network.encoder import Encoder, expected_shapes

LARGE = Path(__file__).parents[3] / "loadtests" / "data" / "config.yaml"


def large_encoder(dtype: torch.dtype) -> tuple[Encoder, ModelConfig]:
    config = ModelConfig.from_hub(yaml.safe_load(LARGE.read_text(encoding="utf-8"))["model_conf"])
    generator = torch.Generator("cuda").manual_seed(0)
    weights = {}
    for name, shape in expected_shapes(config, 9).items():
        values = torch.randn(shape, generator=generator, device="cuda")
        fan_in = values[0].numel() if values.dim() > 1 else 100
        weights[name] = values / fan_in**0.5 + (1.0 if name.endswith((".weight", "scale")) and values.dim() < 2 else 0)
    return Encoder.from_weights(config, weights, device=torch.device("cuda", 0), dtype=dtype), config


def run_program(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
