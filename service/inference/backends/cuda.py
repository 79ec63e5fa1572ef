"""Opens a device, and tells errors of one batch from a GPU that this process cannot use any more."""

from __future__ import annotations

import torch

from service.errors import SettingsInvalid


def open_device(name: str) -> torch.device:
    """Find a device, and make it the default of this thread.

    Args:
        name: `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsInvalid: if torch finds no such GPU.
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
        # Streams, events and CUDA graphs are made on the thread's default device, which is otherwise the first GPU.
        torch.cuda.set_device(device)
        # By default, convolutions in FP32 round to TF32.
        torch.backends.cudnn.allow_tf32 = False
        # cuDNN's attention makes a new plan for every shape, and outside compiled programs there are many shapes.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def usable(device: torch.device) -> bool:
    """Whether a device still works after an error.

    After an illegal access, a failed assertion in a kernel or the loss of the GPU, every later call in this process
    fails too; only another process can use the GPU again. A trial call finds out more reliably than a list of errors.
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
