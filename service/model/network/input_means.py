"""Mean inputs of an encoder's linear layers, with which `service.model.onnx.int8` corrects the rounding of weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.model.network.encoder import Encoder
from service.results import Floats


def input_means(encoder: Encoder, waveforms: Sequence[Floats]) -> dict[str, NDArray[np.float32]]:
    """Run an encoder and average the inputs of its linear layers over all tokens of all waveforms.

    Args:
        encoder: in FP32 on the CPU.
        waveforms: float32 (time,) at 16 kHz, normalised if the encoder needs it.

    Returns:
        float32 (in,), by the name of the layer in the encoder.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs.flatten(end_dim=-2)
        sums[name] = sums.get(name, 0.0) + rows.sum(dim=0, dtype=torch.float64)
        counts[name] = counts.get(name, 0) + rows.shape[0]

    layers = [(name, module) for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0])) for name, module in layers
    ]
    try:
        with torch.inference_mode():
            for waveform in waveforms:
                encoder(torch.from_numpy(waveform)[None])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (sums[name] / counts[name]).numpy().astype(np.float32) for name in sums}
