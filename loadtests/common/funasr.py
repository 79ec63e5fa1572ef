"""FunASR, the implementation that the service is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_funasr(hub: Path, device: str, threads: int) -> Any:
    """FunASR's `AutoModel` without progress bars, update checks and log lines, which would cost it time.

    Args:
        hub: a directory in hub layout.
        device: `cpu` or `cuda`.
        threads: on the CPU; 0 keeps FunASR's default.
    """
    from funasr import AutoModel

    options: dict[str, Any] = {"ncpu": threads} if threads else {}
    return AutoModel(
        model=str(hub), device=device, disable_update=True, disable_pbar=True, log_level="ERROR", **options
    )
