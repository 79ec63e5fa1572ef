"""Options of compilation: whether, for which batches, and where programs are cached. It does not import torch."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.settings.settings import expand

logger = logging.getLogger(__name__)

CompileChoice = Literal["auto", "on", "off"]

_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""The variables that name the cache directories of torch and Triton, and their subdirectories of our own cache."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How the encoder is compiled.

    Attributes:
        choice: `auto` compiles on CUDA only; on the CPU compiled programs were not faster.
        clips: the most clips in a batch of a compiled program.
        seconds: length of the longest clip of a compiled program; longer clips run uncompiled.
        cache: directory in which programs are kept for later processes; None leaves that to torch.
    """

    choice: CompileChoice = "auto"
    clips: int = 16
    seconds: float = 10.0
    cache: Path | None = None

    def wanted(self, device: str) -> bool:
        """Whether to compile on a type of device, `cpu` or `cuda`."""
        return self.choice == "on" or (self.choice == "auto" and device == "cuda")

    def set_cache_variables(self) -> None:
        """Set the cache directories of torch and Triton, unless the environment sets them already.

        Call it before torch's compiler is imported, which sets them itself.
        """
        if self.cache is None:
            return
        try:
            # Cached programs are executed, so no other user may write there.
            cache = expand(self.cache)
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            logger.warning("compiled programs cannot be kept (%s); every start will compile them", error)
            return
        for variable, name in _CACHES.items():
            os.environ.setdefault(variable, str(cache.resolve() / name))
