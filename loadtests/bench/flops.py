"""Lower bound of the model's run time: its floating-point operations, and how many the machine computes per second."""

from __future__ import annotations

import time

from service.model.config import ModelConfig


def operations(config: ModelConfig, seconds: float) -> float:
    """Floating-point operations in the matrix products for one clip, in 10^9 (GFLOP)."""
    samples = round(seconds * 16_000)
    total, channels = 0, 1
    for layer in config.conv_layers:
        samples = (samples - layer.kernel) // layer.stride + 1
        total += samples * layer.channels * channels * layer.kernel
        channels = layer.channels
    width = config.embed_dim
    total += samples * channels * width
    total += config.conv_pos_depth * samples * width * (width // config.conv_pos_groups) * config.conv_pos_kernel
    tokens = samples + config.num_extra_tokens
    total += config.blocks * tokens * (4 * width**2 + 2 * width * config.mlp_dim + 2 * tokens * width)
    return 2 * total / 1e9


class MatrixProducts:
    """Speed of FP32 matrix products on this machine, with the library that torch uses (MKL on Intel and AMD)."""

    def gflops(self, threads: int) -> float:
        """The fastest of several products of 2048 x 2048 matrices, in GFLOP per second."""
        import torch

        torch.set_num_threads(threads)
        a, b = torch.randn(2, 2048, 2048)
        best = float("inf")
        for _ in range(8):
            began = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - began)
        return 2 * 2048**3 / best / 1e9
