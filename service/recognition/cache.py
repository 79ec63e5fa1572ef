"""Answers kept for next time: the same bytes under the same options need the model only once.

Nothing of the audio is kept, only its SHA-256. That hash must be a cryptographic one: with any other, a client could
make two files of one hash, and so give another client a wrong answer.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from operator import attrgetter
from threading import Lock
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from cachetools import LRUCache

from service.api.schemas import FileResult
from service.observability.metrics import Metrics
from service.recognition.json_encoding import Base64
from service.recognition.options import Options
from service.results import ModelInfo

LARGEST_SHARE = 8
"""One outcome may take this fraction of the cache, so that a long file with frame embeddings leaves the rest there."""

_PIECE = 1 << 20
_ARRAY_HEAD = 128
_ENTRY_HEAD = 512
"""Bytes of an entry beside its result: the key and its places in the cache's three dictionaries (measured)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found in one file.

    Attributes:
        result: as it is answered.
        labels: English name of the best label of each clip.
        seconds: audio that was scored, over all clips.
    """

    result: FileResult
    labels: tuple[str, ...]
    seconds: float

    @property
    def duration(self) -> float:
        """Seconds of audio that the file has."""
        return self.result["audio"]["duration"]


@dataclass(frozen=True, slots=True)
class Key:
    """What an outcome depends on: the file's bytes (SHA-256), the options that matter, and the model."""

    content: bytes
    options: str
    model: ModelInfo


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a request lets the cache do: answer it, and keep its answer."""

    read: bool = True
    store: bool = True

    @classmethod
    def asked(cls, cache_control: str) -> Self:
        """As the request's `Cache-Control` says (RFC 9111): `no-cache` computes anew, `no-store` leaves no trace."""
        directives = {directive.strip().lower() for directive in cache_control.split(",")}
        store = "no-store" not in directives
        return cls(read=store and directives.isdisjoint({"no-cache", "max-age=0"}), store=store)


def file_key(file: BinaryIO, options: Options, model: ModelInfo) -> Key:
    """The key of a file, which is read to its end and rewound. May take a while: not for the event loop."""
    content = hashlib.sha256()
    while piece := file.read(_PIECE):
        content.update(piece)
    file.seek(0)
    # How long the client would have waited changes nothing about what it gets.
    return Key(content.digest(), options.model_dump_json(exclude={"timeout"}, exclude_defaults=True), model)


class AnswerCache:
    """Outcomes by key; when they are too many, those that were not asked for the longest go. Safe for threads.

    Args:
        max_bytes: memory that the outcomes may take.
        metrics: where to count.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._outcomes = _Counted(max_bytes, metrics)
        self._largest = max_bytes // LARGEST_SHARE
        self._metrics = metrics
        self._lock = Lock()

    def get(self, key: Key) -> Outcome | None:
        """What was found for `key` before, if it is still known."""
        with self._lock:
            entry = self._outcomes.get(key)
        outcome = None if entry is None else entry.outcome
        self._metrics.cache_requests.labels("miss" if outcome is None else "hit").inc()
        return outcome

    def put(self, key: Key, outcome: Outcome) -> None:
        """Keep what was found for `key`, unless it is too large."""
        entry = _Entry(outcome, memory_of(outcome))
        if entry.size > self._largest:
            return
        with self._lock:
            self._outcomes[key] = entry
            self._metrics.cache_bytes.set(self._outcomes.currsize)


class _Entry(NamedTuple):
    outcome: Outcome
    size: int


class _Counted(LRUCache[Key, _Entry]):
    """The library's cache, with its evictions counted."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        super().__init__(max_bytes, attrgetter("size"))
        self._metrics = metrics

    def popitem(self) -> tuple[Key, _Entry]:
        self._metrics.cache_evictions.inc()
        return super().popitem()


def memory_of(outcome: Outcome) -> int:
    """Bytes that an outcome takes in the cache, its key included."""
    return _ENTRY_HEAD + _memory_of(outcome.result)


def _memory_of(value: object) -> int:
    if isinstance(value, np.ndarray):
        # A view keeps all of the array alive that it was cut from; other owners do not say how much they hold.
        return _ARRAY_HEAD + int(getattr(value.base, "nbytes", value.nbytes))
    if isinstance(value, Base64):
        return _memory_of(value.array)
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(map(_memory_of, value.values()))
    if isinstance(value, str):
        return 0  # names of labels and the like, which are there once for all outcomes
    if isinstance(value, list):
        return sys.getsizeof(value) + sum(map(_memory_of, value))
    return sys.getsizeof(value)
