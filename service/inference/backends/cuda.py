"""A GPU's state: opening it, and telling errors that pass from those that stay as long as the process lives."""

from __future__ import annotations

import torch

from service.errors import SettingsInvalid


def open_device(name: str) -> torch.device:
    """Find a device and make it the thread's own.

    Args:
        name: `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsInvalid: if there is no such GPU.
    """
    device = torch.device(name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise SettingsInvalid(
                f"device is {name}, but torch finds {found or 'no'} usable GPU; check `nvidia-smi` and that torch was "
                "installed with CUDA, or set the device to cpu"
            )
        device = torch.device("cuda", device.index or 0)
        # Streams, events and graphs are made on the thread's present device, which is otherwise the first.
        torch.cuda.set_device(device)
        # FP32 shall mean FP32: convolutions would round to TF32 by default.
        torch.backends.cudnn.allow_tf32 = False
        # cuDNN's attention would plan anew for every shape, of which there are many outside compiled programs.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def usable(device: torch.device) -> bool:
    """Whether a device still works, after something on it has failed.

    After an illegal access, a failed assertion in a kernel or the loss of the GPU, every later call fails as well, and
    no call brings it back: only another process can use the GPU again. Asking is more certain than knowing all errors.
    """
    if device.type != "cuda":
        return True
    try:
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True
