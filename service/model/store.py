"""Finds prepared models: the embedded one, the cache, local directories. Prepares a model first where needed."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from service.data import MODELS
from service.errors import CheckpointInvalid, HubUnreachable, ModelNotFound
from service.extras import extra
from service.model import hub
from service.model.manifest import MANIFEST, MODEL_ID, SCHEMA, Manifest

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
    return pull(model, cache=cache)


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
    name = hub.canonical(model)
    download = cache / "downloads" / _flat(name)
    with extra("torch", f"Preparing {name} needs"):
        from service.model.prepare import prepare
    # The download is kept until the model is prepared, so that an interrupted one is resumed.
    origin = hub.fetch(model, download, hub=source)
    manifest = prepare(download, _entry(cache, name), id=name, origin=origin)
    shutil.rmtree(download, ignore_errors=True)
    return StoredModel(_entry(cache, name), manifest)


def stored_models(cache: Path) -> list[StoredModel]:
    """The embedded model, and the complete models of the cache sorted by name."""
    found = [_open(_EMBEDDED_DIRECTORY)] if (_EMBEDDED_DIRECTORY / MANIFEST).is_file() else []
    for path in sorted((cache / "models").glob(f"[!.]*/{MANIFEST}")):
        try:
            found.append(_open(path.parent))
        except CheckpointInvalid as error:
            logger.warning("a model of the cache is not listed: %s", error.detail)
    return found


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
    return cache / "models" / _flat(name)


def _flat(name: str) -> str:
    return name.replace("/", "--")
