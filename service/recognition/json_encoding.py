"""Answers as JSON: small ones in one piece, large ones in pieces, so that other threads run in between.

The encoder holds the GIL during a call. Five minutes of frame scores are 135,000 numbers (about 20 ms), of frame
embeddings 15 million. float32 is written with the fewest digits that are read back as the same float32.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from service.results import Floats

_BLOCK = 8192
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS


@dataclass(frozen=True, slots=True)
class Base64:
    """An array that is encoded as base64 of its little-endian float32 values, row by row."""

    array: Floats

    def pieces(self) -> Iterator[bytes]:
        """The text in blocks, each of a multiple of three bytes, so that they can be joined."""
        data = np.ascontiguousarray(self.array, dtype="<f4").data.cast("B")
        size = 3 * _BLOCK
        for begin in range(0, len(data), size):
            yield base64.b64encode(data[begin : begin + size])


def encode(value: Mapping[str, object]) -> list[bytes]:
    """JSON of a tree that may hold float32 arrays and `Base64`; the pieces, joined, are the document."""
    return list(_pieces(value))


def encoded(value: Mapping[str, object]) -> orjson.Fragment:
    """JSON of a part of a later answer; it takes a fraction of the memory of the objects."""
    return orjson.Fragment(b"".join(_pieces(value)))


def _pieces(value: object) -> Iterator[bytes]:
    if not _is_large(value):
        yield orjson.dumps(value, _small, _OPTIONS)
    elif isinstance(value, np.ndarray):
        yield from _array(value)
    elif isinstance(value, Base64):
        yield b'"'
        yield from value.pieces()
        yield b'"'
    elif isinstance(value, Mapping):
        for index, (key, item) in enumerate(value.items()):
            yield (b"," if index else b"{") + orjson.dumps(key) + b":"
            yield from _pieces(item)
        yield b"}"
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            yield b"," if index else b"["
            yield from _pieces(item)
        yield b"]"


def _array(array: Floats) -> Iterator[bytes]:
    rows = max(1, _BLOCK * len(array) // array.size)
    for begin in range(0, len(array), rows):
        yield b"," if begin else b"["
        yield orjson.dumps(np.ascontiguousarray(array[begin : begin + rows]), option=_OPTIONS)[1:-1]
    yield b"]"


def _is_large(value: object) -> bool:
    if isinstance(value, Base64):
        return value.array.size > _BLOCK
    if isinstance(value, np.ndarray):
        return value.size > _BLOCK
    if isinstance(value, Mapping):
        return any(_is_large(item) for item in value.values())
    return isinstance(value, list) and any(_is_large(item) for item in value)


def _small(value: object) -> object:
    """Called by orjson for types that it does not know."""
    if isinstance(value, Base64):
        return b"".join(value.pieces()).decode("ascii")
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value)
    raise TypeError(type(value).__name__)
