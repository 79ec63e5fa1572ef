"""What the core does without, and how it says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import MissingExtra

_PACKAGES = {"funasr", "huggingface_hub", "modelscope_hub", "onnx", "requests", "torch", "torchaudio"}


@contextmanager
def torch_extra(purpose: str) -> Iterator[None]:
    """Around imports of what the extra `[torch]` provides: say what to install where it is missing.

    Args:
        purpose: what needs it, as the beginning of a sentence.

    Raises:
        MissingExtra: if one of the extra's packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise MissingExtra(
            f"{purpose} needs {package}, which is not installed: pip install 'emotion2vec-service[torch]'"
        ) from error
