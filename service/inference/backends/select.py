"""Chooses and opens a backend. It imports torch only if the torch backend may be used."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from service.errors import SettingsInvalid
from service.extras import extra
from service.inference.backend import Backend
from service.inference.backends.compile_options import CompileOptions
from service.model.manifest import Manifest

logger = logging.getLogger(__name__)

BackendChoice = Literal["auto", "onnx", "torch"]
DtypeChoice = Literal["auto", "fp32", "fp16", "bf16", "int8"]

_NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of these exists where an NVIDIA driver is installed (the last under WSL)."""


def open_backend(
    directory: Path,
    manifest: Manifest,
    *,
    backend: BackendChoice = "auto",
    device: str = "auto",
    dtype: DtypeChoice = "auto",
    threads: int = 0,
    few: bool = False,
    compile_options: CompileOptions = CompileOptions(),  # noqa: B008 - immutable
) -> Backend:
    """Load a prepared model.

    Args:
        directory: the prepared model.
        manifest: its manifest.
        backend: `auto` is torch if a GPU is asked for or found, else ONNX Runtime.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `auto` is FP32 on the CPU and half precision on CUDA; `int8` runs on the CPU with ONNX Runtime.
        threads: of one inference on the CPU; 0 takes all cores.
        few: whether only a few clips will be run, so that a fast start matters more than fast runs.
        compile_options: whether the warm-up compiles the model; torch only.

    Raises:
        SettingsInvalid: if the choices contradict each other, or there is no such device.
        MissingExtra: if torch is needed and not installed.
        ModelNotFound: if the model was not prepared in this precision.
        CheckpointInvalid: if its files are not usable.
    """
    if backend == "auto":
        backend, device = _choose(device, dtype)
    if backend == "onnx":
        if compile_options.choice == "on":
            raise SettingsInvalid("only the torch backend compiles; compile=on needs backend=torch or a GPU")
        return _open_onnx(directory, manifest, device, dtype, threads, few)
    return _open_torch(directory, manifest, device, dtype, threads, compile_options)


def _choose(device: str, dtype: DtypeChoice) -> tuple[BackendChoice, str]:
    if device == "cpu" or dtype == "int8":
        return "onnx", device
    if device != "auto" or dtype in ("fp16", "bf16"):
        return "torch", device
    if not any(path.exists() for path in _NVIDIA):
        return "onnx", "cpu"
    if find_spec("torch") is None:
        logger.warning("there is a GPU, but torch is not installed; running on the CPU with ONNX Runtime")
        return "onnx", "cpu"
    import torch

    if torch.cuda.is_available():
        return "torch", "cuda"
    logger.warning("there is an NVIDIA driver, but torch cannot use it; running on the CPU with ONNX Runtime")
    return "onnx", "cpu"


def _open_onnx(
    directory: Path, manifest: Manifest, device: str, dtype: DtypeChoice, threads: int, few: bool
) -> Backend:
    from service.inference.backends.onnx_backend import OnnxBackend

    if device not in ("auto", "cpu"):
        raise SettingsInvalid(f"the onnx backend and int8 run on the CPU only, not on {device}")
    if dtype in ("fp16", "bf16"):
        raise SettingsInvalid(f"the onnx backend runs in fp32 or int8, not in {dtype}; {dtype} needs a GPU")
    return OnnxBackend(directory, manifest, dtype="int8" if dtype == "int8" else "fp32", threads=threads, few=few)


def _open_torch(
    directory: Path, manifest: Manifest, device: str, dtype: DtypeChoice, threads: int, compile_options: CompileOptions
) -> Backend:
    if dtype == "int8":
        raise SettingsInvalid("int8 runs on the CPU with the onnx backend only, not with torch")
    if compile_options.wanted("cpu" if device == "cpu" else "cuda"):
        compile_options.set_cache_variables()
    with extra("torch", "The torch backend needs"):
        import torch

        from service.inference.backends.torch_backend import TorchBackend
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and dtype in ("fp16", "bf16"):
        raise SettingsInvalid(f"{dtype} needs a GPU; on the CPU the torch backend runs in fp32")
    return TorchBackend(
        directory, manifest, device=device, dtype=dtype, threads=threads, compile_options=compile_options
    )
