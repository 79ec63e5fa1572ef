"""Asynchronous copies between the host and a device."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer:
    """The copies of one run.

    To and from a GPU they go through pinned memory, so that the GPU makes them in stream order while the host goes on.
    Pinned memory that the GPU may still read is held until the GPU has finished. On the CPU nothing is copied.

    Args:
        device: where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._in_flight: list[Tensor] = []

    def buffer(self, size: int) -> Tensor:
        """Uninitialised memory on the host to be filled and then sent: FP32 (size,)."""
        return torch.empty(size, dtype=torch.float32, pin_memory=self._cuda)

    def to_device(self, values: Tensor) -> Tensor:
        """Start to send values, and return at once; `values` must not be changed afterwards."""
        if not self._cuda:
            return values
        pinned = values if values.is_pinned() else values.pin_memory()
        self._in_flight.append(pinned)
        return pinned.to(self._device, non_blocking=True)

    def to_host(self, values: Tensor) -> NDArray[Any]:
        """Fetch values; blocks, without spinning, until the device has finished all work before it."""
        if not self._cuda:
            return values.numpy()
        pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        pinned.copy_(values, non_blocking=True)
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call] # torch has no types there
        done.record(torch.cuda.current_stream(self._device))
        done.synchronize()
        self._in_flight.clear()
        return pinned.numpy()
