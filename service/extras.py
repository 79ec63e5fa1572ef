"""The optional dependencies ("extras") of the package, and the error that says which one to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import MissingExtra

_PACKAGES = {
    "mic": {"sounddevice"},
    "otel": {"opentelemetry", "requests"},
    "parquet": {"pyarrow"},
    "torch": {"funasr", "huggingface_hub", "modelscope_hub", "onnx", "requests", "torch", "torchaudio"},
}
"""By extra, the top-level packages that are imported and not installed without it."""


@contextmanager
def extra(name: str, needs: str) -> Iterator[None]:
    """Around imports of what an extra provides: turn a missing package into an error that says what to install.

    Args:
        name: the extra, as `pyproject.toml` calls it.
        needs: the beginning of the message up to its verb, such as `Parquet needs`.

    Raises:
        MissingExtra: if one of the extra's packages is not installed. Other missing modules stay
            `ModuleNotFoundError`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or ""
        if module.partition(".")[0] not in _PACKAGES[name]:
            raise
        raise MissingExtra(
            f"{needs} {module}, which is not installed; in a checkout of the service: pip install ./client '.[{name}]'"
        ) from error
