"""The cache of answers: a file with the same bytes and options is recognised only once.

Of the audio only its SHA-256 is kept. The hash must be cryptographic; otherwise a client could construct two files with
the same hash, so that another client gets a wrong answer.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from operator import attrgetter
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

import numpy as np
from cachetools import LRUCache

from service.observability.observer import Observer
from service.recognition.json_encoding import Base64
from service.recognition.options import Options
from service.results import ModelInfo

if TYPE_CHECKING:
    from service.recognition.result_types import FileResult

LARGEST_SHARE = 8
"""One answer may take one part in so many of the cache; a larger one would evict most others."""

_PIECE = 1 << 20
_ARRAY_HEAD = 128
_ENTRY_HEAD = 512
"""Bytes of an entry besides its result: the key and the items of the cache's three dictionaries (measured)."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """The answer for one file.

    Attributes:
        result: before it is encoded.
        labels: English name of the most likely label of each clip.
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
    """What an answer depends on: the bytes of the file (SHA-256), the options, and the model."""

    content: bytes
    options: Options
    model: ModelInfo


@dataclass(frozen=True, slots=True)
class CacheControl:
    """Whether a request may be answered from the cache, and whether its answer may be stored."""

    read: bool = True
    store: bool = True

    @classmethod
    def parse(cls, header: str) -> Self:
        """Parse `Cache-Control` of a request (RFC 9111): `no-cache` does not read the cache, `no-store` bypasses it."""
        directives = {directive.strip().lower() for directive in header.split(",")}
        store = "no-store" not in directives
        return cls(read=store and directives.isdisjoint({"no-cache", "max-age=0"}), store=store)


def file_key(file: BinaryIO, options: Options, model: ModelInfo) -> Key:
    """The key of a file, which is read to its end and rewound; too slow for the event loop."""
    content = hashlib.sha256()
    while piece := file.read(_PIECE):
        content.update(piece)
    file.seek(0)
    return Key(content.digest(), replace(options, timeout=None), model)  # the answer does not depend on the timeout


class AnswerCache:
    """Answers by key; the least recently used are evicted if the memory is exceeded. Thread-safe.

    Args:
        max_bytes: memory that the answers may take.
        observer: receives lookups, evictions and sizes.
    """

    def __init__(self, max_bytes: int, observer: Observer) -> None:
        self._answers = _ObservedCache(max_bytes, observer)
        self._largest = max_bytes // LARGEST_SHARE
        self._observer = observer
        self._lock = Lock()

    def get(self, key: Key) -> CachedFile | None:
        """The answer for `key`; None if it is not in the cache."""
        with self._lock:
            entry = self._answers.get(key)
        self._observer.cache_looked_up("miss" if entry is None else "hit")
        return None if entry is None else entry.answer

    def put(self, key: Key, answer: CachedFile) -> None:
        """Store the answer for `key`, unless it is too large."""
        entry = _Entry(answer, memory_of(answer))
        if entry.size > self._largest:
            return
        with self._lock:
            self._answers[key] = entry
            self._observer.cache_changed(int(self._answers.currsize))


class _Entry(NamedTuple):
    answer: CachedFile
    size: int


class _ObservedCache(LRUCache[Key, _Entry]):
    """An LRU cache that reports its evictions."""

    def __init__(self, max_bytes: int, observer: Observer) -> None:
        super().__init__(max_bytes, attrgetter("size"))
        self._observer = observer

    def popitem(self) -> tuple[Key, _Entry]:
        self._observer.cache_evicted()
        return super().popitem()


def memory_of(answer: CachedFile) -> int:
    """Bytes that an answer takes in the cache, its key included."""
    return _ENTRY_HEAD + _memory_of(answer.result)


def _memory_of(value: object) -> int:
    if isinstance(value, np.ndarray):
        # A view keeps its whole base array in memory; a base that is not an array has no `nbytes`.
        return _ARRAY_HEAD + int(getattr(value.base, "nbytes", value.nbytes))
    if isinstance(value, Base64):
        return _memory_of(value.array)
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(map(_memory_of, value.values()))
    if isinstance(value, str):
        return 0  # names of labels and the like, which all answers share
    if isinstance(value, list):
        return sys.getsizeof(value) + sum(map(_memory_of, value))
    return sys.getsizeof(value)
