"""The traffic mix of all load tests: clips of several lengths and codecs, with several options of the API."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import soundfile

from loadtests.common.audio_clips import speech
from service.results import SAMPLING_RATE

_SECONDS = {1.0: 4, 3.0: 4, 10.0: 2}
"""Weights by length of the clip."""

_CODECS = {
    "wav": (("WAV", "PCM_16"), "audio/wav", 5),
    "flac": (("FLAC", "PCM_16"), "audio/flac", 2),
    "opus": (("OGG", "OPUS"), "audio/ogg", 2),
    "mp3": (("MP3", "MPEG_LAYER_III"), "audio/mpeg", 1),
}
_OPTIONS = {
    "utterance": ("", 7),
    "embedding": ("?embedding=utterance&encoding=base64", 1),
    "frame": ("?granularity=frame", 1),
    "windows": ("?granularity=frame&window=1&hop=0.5", 1),
}


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One request to `/recognize`.

    Attributes:
        kind: name of the options in `query`.
        query: with its question mark, or empty.
        body: the file.
        content_type: of the body.
        seconds: of audio.
    """

    kind: str
    query: str
    body: bytes
    content_type: str
    seconds: float


class TrafficMix:
    """Draws requests: short clips more often than long ones, plain scores more often than other options.

    Args:
        seed: decides the order.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self) -> LoadRequest:
        """The next request."""
        (seconds,) = self._random.choices(list(_SECONDS), list(_SECONDS.values()))
        (codec,) = self._random.choices(list(_CODECS), [weight for _, _, weight in _CODECS.values()])
        (kind,) = self._random.choices(list(_OPTIONS), [weight for _, weight in _OPTIONS.values()])
        subtype, content_type, _ = _CODECS[codec]
        return LoadRequest(kind, _OPTIONS[kind][0], _encoded(seconds, *subtype), content_type, seconds)


def encode_all() -> None:
    """Encode every body that a mix may draw now, since encoding during a measurement would take time from it."""
    for seconds in _SECONDS:
        for subtype, _, _ in _CODECS.values():
            _encoded(seconds, *subtype)


def request_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """Headers of every request: answers must come from the model, not the cache; the API key is LOAD_API_KEY."""
    key = environment.get("LOAD_API_KEY")
    return {"Cache-Control": "no-cache", **({"X-API-Key": key} if key else {})}


@cache
def _encoded(seconds: float, format: str, subtype: str) -> bytes:  # noqa: A002 - soundfile's own name for it
    file = io.BytesIO()
    soundfile.write(file, speech(seconds), SAMPLING_RATE, format=format, subtype=subtype)
    return file.getvalue()
