"""Fetches a model's files from ModelScope or Hugging Face, when asked to and only then."""

from __future__ import annotations

import logging
import os
import queue
import threading
from pathlib import Path
from typing import Literal

from service.errors import HubUnreachable, ModelNotFound
from service.extras import torch_extra

logger = logging.getLogger(__name__)

Hub = Literal["modelscope", "huggingface"]

KNOWN_MODELS = tuple(f"iic/emotion2vec_{name}" for name in ("plus_large", "plus_base", "plus_seed", "base_finetuned"))
"""What is known to work, by its name on ModelScope; on Hugging Face the owner is `emotion2vec`."""

FILES = ("config.yaml", "tokens.txt", "model.pt")
"""What a directory in hub layout must hold, and all that is fetched; the large one last."""

_OWNERS: dict[Hub, str] = {"modelscope": "iic", "huggingface": "emotion2vec"}
_ENDPOINTS: dict[Hub, tuple[str, str]] = {
    "modelscope": ("MODELSCOPE_ENDPOINT", "https://modelscope.cn"),
    "huggingface": ("HF_ENDPOINT", "https://huggingface.co"),
}
_PROBE_SECONDS = 6.0


def fetch(model: str, directory: Path, *, hub: Hub | None = None) -> str:
    """Download what `service.model.checkpoint` reads of a model into `directory`; complete files are kept.

    Args:
        model: `owner/name`; the emotion2vec models go by either hub's name on both.
        directory: made if needed.
        hub: which one to ask; by default the one whose name of an emotion2vec model was given, else ModelScope.

    Returns:
        Where it came from, as `hub:owner/name`.

    Raises:
        HubUnreachable: if the hub cannot be reached; the text says how to do without.
        ModelNotFound: if the hub has no such model or file.
        MissingExtra: if the hubs' libraries are not installed.
    """
    hub, name = resolve(model, hub)
    endpoint = _endpoint(hub)
    with torch_extra(f"Fetching {name}"):
        _probe(endpoint, name)
        directory.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            logger.info("fetching %s of %s from %s", file, name, hub)
            if hub == "modelscope":
                _from_modelscope(name, file, directory, endpoint)
            else:
                _from_huggingface(name, file, directory, endpoint)
    return f"{hub}:{name}"


def resolve(model: str, hub: Hub | None) -> tuple[Hub, str]:
    """Which hub to ask for `model`, and by which name."""
    owner, _, name = model.partition("/")
    if hub is None:
        hub = "huggingface" if owner == _OWNERS["huggingface"] else "modelscope"
    if owner in _OWNERS.values():
        owner = _OWNERS[hub]
    return hub, f"{owner}/{name}"


def canonical(model: str) -> str:
    """The one name of a model that both hubs have, which is ModelScope's."""
    return resolve(model, "modelscope")[1]


def without_network(model: str) -> str:
    """How to bring a model to a machine that cannot or must not fetch it."""
    return (
        f"Bring the files yourself: copy {', '.join(FILES)} of {model} into a directory and pass it with --model; "
        "or run `emotion2vec-service models pull` on a machine with network and copy its cache directory "
        "(~/.cache/emotion2vec-service, or SER_CACHE_DIR)."
    )


def _endpoint(hub: Hub) -> str:
    variable, default = _ENDPOINTS[hub]
    endpoint = os.environ.get(variable) or default
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def _probe(endpoint: str, model: str) -> None:
    """Fail within seconds where there is no network: the libraries retry for minutes.

    In a thread, since name resolution has no timeout.
    """
    import requests

    def ask() -> None:
        try:
            requests.get(endpoint, timeout=_PROBE_SECONDS, stream=True, allow_redirects=False).close()
            answers.put(None)
        except requests.RequestException as error:
            answers.put(error)

    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    try:
        failure = answers.get(timeout=_PROBE_SECONDS)
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
        hf_hub_download(model, file, local_dir=directory, endpoint=endpoint, etag_timeout=_PROBE_SECONDS)
    except LocalEntryNotFoundError as error:  # its way to say that the hub did not answer
        raise _failed(file, model, error) from error
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        raise ModelNotFound(f"Hugging Face has no file {file} in a public model {model}") from error
    except OSError as error:
        raise _failed(file, model, error) from error


def _failed(file: str, model: str, error: Exception) -> HubUnreachable:
    return HubUnreachable(f"Fetching {file} of {model} failed ({type(error).__name__}). {without_network(model)}")
