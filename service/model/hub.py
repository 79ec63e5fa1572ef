"""Downloads a model's files from ModelScope or Hugging Face."""

from __future__ import annotations

import logging
import os
import queue
import threading
from pathlib import Path
from typing import Literal

from service.errors import HubUnreachable, ModelNotFound
from service.extras import extra

logger = logging.getLogger(__name__)

Hub = Literal["modelscope", "huggingface"]

KNOWN_MODELS = tuple(f"iic/emotion2vec_{name}" for name in ("plus_large", "plus_base", "plus_seed", "base_finetuned"))
"""Models that are known to work, by their names on ModelScope; on Hugging Face the owner is `emotion2vec`."""

FILES = ("config.yaml", "tokens.txt", "model.pt")
"""The files of a directory in hub layout, which are all that is downloaded; the large one last."""

_OWNERS: dict[Hub, str] = {"modelscope": "iic", "huggingface": "emotion2vec"}
_ENDPOINTS: dict[Hub, tuple[str, str]] = {
    "modelscope": ("MODELSCOPE_ENDPOINT", "https://modelscope.cn"),
    "huggingface": ("HF_ENDPOINT", "https://huggingface.co"),
}
_CONNECT_SECONDS = 6.0


def fetch(model: str, directory: Path, *, hub: Hub | None = None) -> str:
    """Download the files that `service.model.checkpoint` reads into `directory`; complete files are not fetched again.

    Args:
        model: `owner/name`; for the emotion2vec models, the owner of either hub works for both.
        directory: created if needed.
        hub: by default the hub whose owner of the emotion2vec models was given, else ModelScope.

    Returns:
        The source, as `hub:owner/name`.

    Raises:
        HubUnreachable: if the hub cannot be reached; the message says how to copy the files by hand.
        ModelNotFound: if the hub has no such model or file.
        MissingExtra: if the hubs' libraries are not installed.
    """
    hub, name = resolve(model, hub)
    endpoint = _endpoint(hub)
    with extra("torch", f"Fetching {name} needs"):
        _check_reachable(endpoint, name)
        directory.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            logger.info("fetching %s of %s from %s", file, name, hub)
            if hub == "modelscope":
                _from_modelscope(name, file, directory, endpoint)
            else:
                _from_huggingface(name, file, directory, endpoint)
    return f"{hub}:{name}"


def resolve(model: str, hub: Hub | None) -> tuple[Hub, str]:
    """The hub to ask for `model`, and the model's name there."""
    owner, _, name = model.partition("/")
    if hub is None:
        hub = "huggingface" if owner == _OWNERS["huggingface"] else "modelscope"
    if owner in _OWNERS.values():
        owner = _OWNERS[hub]
    return hub, f"{owner}/{name}"


def canonical(model: str) -> str:
    """The name under which a model is stored, whichever hub it comes from: its name on ModelScope."""
    return resolve(model, "modelscope")[1]


def without_network(model: str) -> str:
    """Instructions for a machine that cannot or must not download a model."""
    return (
        f"Bring the files yourself: copy {', '.join(FILES)} of {model} into a directory and pass it with --model; "
        "or run `emotion2vec-service models pull` on a machine with network and copy its cache directory "
        "(~/.cache/emotion2vec-service, or SER_CACHE_DIR)."
    )


def _endpoint(hub: Hub) -> str:
    variable, default = _ENDPOINTS[hub]
    endpoint = os.environ.get(variable) or default
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def _check_reachable(endpoint: str, model: str) -> None:
    """Fail within seconds if there is no network; the hubs' libraries would retry for minutes.

    The request runs in a thread, since name resolution has no timeout.
    """
    import requests

    def ask() -> None:
        try:
            requests.get(endpoint, timeout=_CONNECT_SECONDS, stream=True, allow_redirects=False).close()
            answers.put(None)
        except requests.RequestException as error:
            answers.put(error)

    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    threading.Thread(target=ask, name="hub-reachable", daemon=True).start()
    try:
        failure = answers.get(timeout=_CONNECT_SECONDS)
    except queue.Empty:
        failure = TimeoutError()
    if failure is not None:
        raise HubUnreachable(
            f"{endpoint} cannot be reached ({type(failure).__name__}). {without_network(model)}"
        ) from failure


def _from_modelscope(model: str, file: str, directory: Path, endpoint: str) -> None:
    from modelscope_hub import HubApi, HubError, NotExistError

    try:
        HubApi(endpoint=endpoint).download_file(model, "model", file, local_dir=directory)
    except NotExistError as error:
        raise ModelNotFound(f"ModelScope has no file {file} in a model {model}") from error
    except (HubError, OSError) as error:
        raise _failed(file, model, error) from error


def _from_huggingface(model: str, file: str, directory: Path, endpoint: str) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        hf_hub_download(model, file, local_dir=directory, endpoint=endpoint, etag_timeout=_CONNECT_SECONDS)
    except LocalEntryNotFoundError as error:  # what the library raises if the hub does not answer
        raise _failed(file, model, error) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise ModelNotFound(f"Hugging Face has no file {file} in a public model {model}") from error
    except OSError as error:
        raise _failed(file, model, error) from error


def _failed(file: str, model: str, error: Exception) -> HubUnreachable:
    return HubUnreachable(f"Fetching {file} of {model} failed ({type(error).__name__}). {without_network(model)}")
