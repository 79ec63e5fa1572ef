"""Finds prepared models: the embedded one, the cache, local directories. Prepares a model first where needed."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.data import MODELS
from service.errors import CheckpointInvalid, HubUnreachable, ModelNotFound, SettingsInvalid, SetupError
from service.extras import extra
from service.model import hub
from service.model.manifest import MANIFEST, MODEL_ID, SCHEMA, Manifest
from service.settings.settings import expand

logger = logging.getLogger(__name__)

EMBEDDED = "tiny"
"""The name of the model that comes with the package."""

_EMBEDDED_DIRECTORY = MODELS / EMBEDDED


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A prepared model on this machine whose manifest and file sizes have been checked."""

    directory: Path
    manifest: Manifest


def find(model: str, *, cache: Path, offline: bool = False) -> StoredModel:
    """Find a model by what the user calls it; download and prepare it if needed.

    Args:
        model: `tiny`, a local directory (prepared, or in hub layout), or a hub id.
        cache: the directory of prepared models.
        offline: never use the network.

    Raises:
        ModelNotFound: if `model` is neither a directory nor the id of a model on the hub.
        HubUnreachable: if the model must be downloaded and cannot be.
        CheckpointInvalid: if the model is not usable.
        MissingExtra: if it must be prepared and the extra `[torch]` is not installed.
        SettingsInvalid: if the home directory, which one of the directories names, is not known.
        SetupError: if the cache cannot be written.
    """
    if model == EMBEDDED:
        return _open(_EMBEDDED_DIRECTORY)
    directory = _expanded(Path(model), "model")
    if directory.is_dir():
        return _open(directory) if (directory / MANIFEST).is_file() else _from_directory(directory, cache)
    if "/" not in model or not MODEL_ID.fullmatch(model):
        raise ModelNotFound(
            f"{model!r} is neither a directory nor a model's id; known are {EMBEDDED} and {', '.join(hub.KNOWN_MODELS)}"
        )
    target = _entry(cache, hub.canonical(model))
    if (target / MANIFEST).is_file():
        return _open(target)
    if offline:
        raise HubUnreachable(f"{model} is not in {cache}, and offline it is not fetched. {hub.without_network(model)}")
    return _pull(model, cache, None, replace=False)


def pull(model: str, *, cache: Path, source: hub.Hub | None = None) -> StoredModel:
    """Download a model from a hub and prepare it into the cache, even if the cache has it already.

    Args:
        model: a hub id.
        cache: the directory of prepared models.
        source: the hub to ask; see `service.model.hub.fetch`.

    Raises:
        As `find`.
    """
    if "/" not in model or not MODEL_ID.fullmatch(model):
        raise ModelNotFound(f"{model!r} is not a hub's id; known are {', '.join(hub.KNOWN_MODELS)}")
    return _pull(model, cache, source, replace=True)


def stored_models(cache: Path) -> list[StoredModel]:
    """The embedded model, and the complete models of the cache sorted by name."""
    found = [_open(_EMBEDDED_DIRECTORY)] if (_EMBEDDED_DIRECTORY / MANIFEST).is_file() else []
    for path in sorted((_expanded(cache, "cache_dir") / "models").glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(_open(path.parent))
        except CheckpointInvalid as error:
            logger.warning("a model of the cache is not listed: %s", error.detail)
    return found


def _pull(model: str, cache: Path, source: hub.Hub | None, *, replace: bool) -> StoredModel:
    """Download and prepare a model; without `replace`, take what another process prepared meanwhile."""
    name = hub.canonical(model)
    with extra("torch", f"Preparing {name} needs"):
        from service.model.prepare import prepare
    target = _entry(cache, name)
    with _locked(target):
        if not replace and (target / MANIFEST).is_file():
            return _open(target)
        # The download is kept until the model is prepared, so that an interrupted one is resumed.
        download = _expanded(cache, "cache_dir") / "downloads" / _flat(name)
        origin = hub.fetch(model, download, hub=source)
        manifest = prepare(download, target, id=name, origin=origin)
        shutil.rmtree(download, ignore_errors=True)
    return StoredModel(target, manifest)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Wait until no other process downloads or prepares the model of this directory, and keep others from it.

    Raises:
        SetupError: if the cache cannot be written.
    """
    path = target.with_name(f".{target.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise SetupError(f"The cache {path.parent} cannot be written: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process prepares %s; waiting for it", target)
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the other process ends, however it ends
        yield


def _open(directory: Path) -> StoredModel:
    return StoredModel(directory, Manifest.read(directory))


def _from_directory(directory: Path, cache: Path) -> StoredModel:
    """Prepare a directory in hub layout into the cache, unless an entry of its name, content and format exists."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", directory.resolve().name).strip("-._") or "model"
    target = _entry(cache, f"{name[:60]}@{_content(directory)}")
    if (target / MANIFEST).is_file():
        return _open(target)
    with extra("torch", f"Preparing {directory} needs"):
        from service.model.prepare import prepare
    with _locked(target):
        if (target / MANIFEST).is_file():
            return _open(target)
        return StoredModel(target, prepare(directory, target, id=name[:60]))


def _content(directory: Path) -> str:
    """A short checksum of the checkpoint in `directory` and of the version of the prepared format."""
    digest = hashlib.sha256(bytes([SCHEMA]))
    for name in hub.FILES:
        try:
            with (directory / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelNotFound(
                f"{directory} is not a model: it has neither {MANIFEST} nor all of {', '.join(hub.FILES)}"
            ) from error
    return digest.hexdigest()[:12]


def _entry(cache: Path, name: str) -> Path:
    return _expanded(cache, "cache_dir") / "models" / _flat(name)


def _expanded(path: Path, setting: str) -> Path:
    try:
        return expand(path)
    except ValueError as error:
        raise SettingsInvalid(f"{setting}: {error}") from None


def _flat(name: str) -> str:
    return name.replace("/", "--")
