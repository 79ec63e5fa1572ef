"""Finds and opens the model that the settings select."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.settings.settings import Settings

if TYPE_CHECKING:
    from service.inference.backend import Backend
    from service.model.store import StoredModel

MODEL_SETTINGS = ("model", "backend", "device", "dtype", "threads", "cache_dir", "offline")
"""The settings that a command needs to open a model."""


def find_model(settings: Settings) -> StoredModel:
    """Find the model in the cache or on a hub.

    Raises:
        SetupError: if the model does not exist or cannot be fetched.
    """
    from service.model.store import find

    return find(settings.model, cache=settings.cache_dir, offline=settings.offline)


def open_model(stored: StoredModel, settings: Settings, *, few: bool = False) -> Backend:
    """Open a backend with the model. If there are `few` clips, it skips preparation that takes longer than it saves.

    Raises:
        SetupError: if the backend cannot be opened.
    """
    from service.inference.backends.compile_options import CompileOptions
    from service.inference.backends.select import open_backend

    return open_backend(
        stored.directory,
        stored.manifest,
        backend=settings.backend,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        few=few,
        compile_options=CompileOptions(
            choice="off" if few and settings.compile == "auto" else settings.compile,
            clips=settings.compile_clips,
            seconds=settings.compile_seconds,
            cache=settings.cache_dir / "compiled",
        ),
    )
