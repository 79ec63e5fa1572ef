"""Finds and opens the model that the settings select."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
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


def start_opening(stored: StoredModel, settings: Settings, *, few: bool = False) -> Callable[[], Backend]:
    """Begin to open a backend with the model in a thread, so that the command can import other modules meanwhile.

    Args:
        stored: the model.
        settings: which backend, and how it runs.
        few: whether there are only a few clips. It then skips preparation that takes longer than it saves.

    Returns:
        A function that returns this backend the first time, and opens another one each time after that, in the thread
        that calls it. It raises SetupError if the backend cannot be opened.
    """
    from concurrent.futures import Future

    def open_into(result: Future[Backend]) -> None:
        try:
            result.set_result(_open_model(stored, settings, few))
        except BaseException as error:  # whatever it is, the caller must be told
            result.set_exception(error)

    opening: list[Future[Backend]] = [Future()]
    # A daemon, so that the command can end without waiting for the model.
    Thread(target=open_into, args=opening, name="model-opener", daemon=True).start()

    def opened() -> Backend:
        # It is removed, so that a backend which breaks leaves the memory before the next one is opened.
        return opening.pop().result() if opening else _open_model(stored, settings, few)

    return opened


def _open_model(stored: StoredModel, settings: Settings, few: bool) -> Backend:
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
