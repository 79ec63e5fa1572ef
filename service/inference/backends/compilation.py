"""Whether the encoder is compiled, for which batches, and where the programs are kept. Nothing here imports torch."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

logger = logging.getLogger(__name__)

CompileChoice = Literal["auto", "on", "off"]

_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Where torch and Triton look for the directory that they keep programs in, and its name below ours."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """What is asked for.

    Attributes:
        choice: `auto` compiles on CUDA only; on the CPU compiled programs were not faster.
        clips: most clips that a compiled program takes at once.
        seconds: of the longest clip that one takes; what is longer runs as it is.
        cache: directory in which programs outlive the process; None leaves that to torch.
    """

    choice: CompileChoice = "auto"
    clips: int = 16
    seconds: float = 10.0
    cache: Path | None = None

    def wanted(self, device: str) -> bool:
        """Whether to compile on a device, `cpu` or `cuda`."""
        return self.choice == "on" or (self.choice == "auto" and device == "cuda")

    def keep_programs(self) -> None:
        """Tell torch and Triton where to keep programs, unless the environment names a place already.

        Comes before torch's compiler is imported, which would name a place itself.
        """
        if self.cache is None:
            return
        try:
            # Programs are loaded and run: nobody else may write there.
            self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            logger.warning(
                "compiled programs cannot be kept in %s (%s); every start will compile them", self.cache, error.strerror
            )
            return
        for variable, name in _CACHES.items():
            os.environ.setdefault(variable, str(self.cache.resolve() / name))
