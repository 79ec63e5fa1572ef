"""Finds prepared models: the embedded one, those in the cache, and local directories; prepares what is not yet."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from service.data import MODELS
from service.errors import CheckpointInvalid, HubUnreachable, ModelNotFound
from service.extras import torch_extra
from service.model import hub
from service.model.manifest import MANIFEST, MODEL_ID, SCHEMA, Manifest

logger = logging.getLogger(__name__)

EMBEDDED = "tiny"
"""The name of the model that comes with the package."""

_EMBEDDED_DIRECTORY = MODELS / EMBEDDED


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A prepared model on this machine, checked as far as its manifest and the sizes of its files go."""

    directory: Path
    manifest: Manifest


def find(model: str, *, cache: Path, offline: bool = False, source: hub.Hub | None = None) -> StoredModel:
    """Find the model that a user asks for, and prepare it first where that is still to do.

    Args:
        model: `tiny`, a local directory (prepared, or in hub layout), or a hub id.
        cache: where prepared models are kept.
        offline: never touch the network.
        source: which hub to ask; see `service.model.hub.fetch`.

    Raises:
        ModelNotFound: if there is no such directory, and `model` is no hub id or unknown there.
        HubUnreachable: if it must be fetched and cannot be.
        CheckpointInvalid: if it is not usable.
        MissingExtra: if it must be prepared and the extra `[torch]` is not installed.
    """
    if model == EMBEDDED:
        return _open(_EMBEDDED_DIRECTORY)
    directory = Path(model).expanduser()
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
    return pull(model, cache=cache, source=source)


def pull(model: str, *, cache: Path, source: hub.Hub | None = None, int8: bool = True) -> StoredModel:
    """Fetch a hub's model and prepare it into the cache, also where the cache has it already.

    Raises:
        As `find`.
    """
    if "/" not in model or not MODEL_ID.fullmatch(model):
        raise ModelNotFound(f"{model!r} is not a hub's id; known are {', '.join(hub.KNOWN_MODELS)}")
    name = hub.canonical(model)
    download = cache / "downloads" / _flat(name)
    with torch_extra(f"Preparing {name}"):
        from service.model.prepare import prepare
    # The download stays where it is until the model is prepared, so that a broken one is resumed.
    origin = hub.fetch(model, download, hub=source)
    manifest = prepare(download, _entry(cache, name), id=name, origin=origin, int8=int8)
    shutil.rmtree(download, ignore_errors=True)
    return StoredModel(_entry(cache, name), manifest)


def stored_models(cache: Path) -> list[StoredModel]:
    """The embedded model and those in the cache that are complete, by name."""
    found = [_open(_EMBEDDED_DIRECTORY)] if (_EMBEDDED_DIRECTORY / MANIFEST).is_file() else []
    for path in sorted((cache / "models").glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(_open(path.parent))
        except CheckpointInvalid as error:
            logger.warning("left out of the list: %s", error.detail)
    return found


def _open(directory: Path) -> StoredModel:
    return StoredModel(directory, Manifest.read(directory))


def _from_directory(directory: Path, cache: Path) -> StoredModel:
    """A directory in hub layout, prepared into the cache under its name, its content and how it is prepared."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", directory.resolve().name).strip("-._") or "model"
    target = _entry(cache, f"{name[:60]}@{_content(directory)}")
    if (target / MANIFEST).is_file():
        return _open(target)
    with torch_extra(f"Preparing {directory}"):
        from service.model.prepare import prepare
    return StoredModel(target, prepare(directory, target, id=name[:60]))


def _content(directory: Path) -> str:
    """A short checksum of what the checkpoint in `directory` holds, another one for each way of preparing it."""
    digest = hashlib.sha256(bytes([SCHEMA]))
    for name in hub.FILES:
        try:
            with (directory / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelNotFound(
                f"{directory} is no model: it has neither {MANIFEST} nor all of {', '.join(hub.FILES)}"
            ) from error
    return digest.hexdigest()[:12]


def _entry(cache: Path, name: str) -> Path:
    return cache / "models" / _flat(name)


def _flat(name: str) -> str:
    return name.replace("/", "--")
