"""A transformer block whose attention is biased by distance in time.

The bias is the only tensor of size tokens x tokens. It is computed for at most as many queries at a time as
`BIAS_ELEMENTS` allows, so memory does not grow with the square of a clip's length; the result is the same.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.model.config import LOWEST_BIAS, ModelConfig

BIAS_ELEMENTS = {"cpu": 2**25, "cuda": 2**27}
"""The most elements of the bias at a time, over the whole batch: 128 MiB in FP32 on the CPU; 256 MiB in half precision
on a GPU, which holds the whole bias of 32 clips of 10 s."""

_QUERY_TILE = 64
"""Attention kernels process this many queries at a time, or a multiple."""


class AttentionBias:
    """The bias that is added to the attention scores of a batch: `-slope * scale * |i - j|`, and -inf for padded keys.

    It is zero for pairs with an extra token. Source: Press et al. 2022, "Train Short, Test Long"; here symmetric
    in time, with learned scales.

    Args:
        slopes: FP32 (head,).
        scales: FP32 (1 or block, 1 or head), learned; negative scales count as zero.
        extra: number of tokens in front of the frames.
        tokens: number of extra tokens and frames.
        padded: boolean (clip, token), true past each clip's end, or None where nothing is padded.
        dtype: of the result, as scaled dot-product attention wants it.
    """

    def __init__(
        self, slopes: Tensor, scales: Tensor, *, extra: int, tokens: int, padded: Tensor | None, dtype: torch.dtype
    ) -> None:
        self._factors = -slopes * scales.clamp(min=0)
        self._position = torch.arange(-extra, tokens - extra, device=slopes.device, dtype=torch.float32)
        self._padded = None if padded is None else padded[:, None, None, :]
        self._dtype = dtype
        clips = 1 if padded is None else padded.shape[0]
        fit = BIAS_ELEMENTS[slopes.device.type] // (clips * slopes.shape[0] * tokens)
        self.rows = tokens if fit >= tokens else max(1, fit // _QUERY_TILE * _QUERY_TILE or fit)
        """Queries whose bias is computed at a time."""
        # One bias for all blocks, if it fits and the blocks share their scales.
        self._shared = self._make(0, 0, tokens) if self.rows == tokens and scales.shape[0] == 1 else None

    def of(self, block: int, first: int, last: int) -> Tensor:
        """The bias of queries `first` up to `last` in a block: (1 or clip, head, query, key)."""
        if self._shared is not None:
            return self._shared
        return self._make(min(block, self._factors.shape[0] - 1), first, last)

    def _make(self, block: int, first: int, last: int) -> Tensor:
        query, key = self._position[first:last, None], self._position[None, :]
        distance = torch.where((query >= 0) & (key >= 0), (query - key).abs(), 0.0)
        bias = (self._factors[block, :, None, None] * distance).clamp_(min=LOWEST_BIAS).to(self._dtype)[None]
        return bias if self._padded is None else bias.masked_fill(self._padded, float("-inf"))


class TransformerBlock(nn.Module):
    """Attention and MLP, each added to its input and then normalised (post-norm)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.norm1 = nn.LayerNorm(width, config.norm_eps)
        self.attn = _Attention(width, config.num_heads)
        self.norm2 = nn.LayerNorm(width, config.norm_eps)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, config.mlp_dim), gelu=nn.GELU(), fc2=nn.Linear(config.mlp_dim, width))
        )

    def forward(self, x: Tensor, bias: AttentionBias, block: int) -> Tensor:
        """Map tokens (clip, token, width) to tokens; `block` is this block's index in the encoder."""
        x = self.norm1(x + self.attn(x, bias, block))
        y: Tensor = self.norm2(x + self.mlp(x))
        return y


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: AttentionBias, block: int) -> Tensor:
        clips, tokens, width = x.shape
        q, k, v = self.qkv(x).view(clips, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind()
        parts = []
        for first in range(0, tokens, bias.rows):
            last = min(first + bias.rows, tokens)
            mask = bias.of(block, first, last)
            parts.append(functional.scaled_dot_product_attention(q[:, :, first:last], k, v, attn_mask=mask))
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        z: Tensor = self.proj(y.transpose(1, 2).reshape(clips, tokens, width))
        return z
