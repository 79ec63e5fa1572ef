"""What the load test sends, how many callers it has, and when it fails; nothing here knows locust."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, Self, cast, get_args

import soundfile

from loadtests import clips
from service.results import SAMPLING_RATE

Shape = Literal["steady", "step", "spike", "soak"]

_SECONDS = {1.0: 4, 3.0: 4, 10.0: 2}
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
class Call:
    """One request: `kind` says which options its `query` has, `seconds` how long its audio is."""

    kind: str
    query: str
    body: bytes
    content_type: str
    seconds: float


class Mix:
    """Draws calls: short clips more often than long ones, plain scores more often than the rest.

    Args:
        seed: another one draws another order.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self) -> Call:
        """The next call."""
        (seconds,) = self._random.choices(list(_SECONDS), list(_SECONDS.values()))
        (codec,) = self._random.choices(list(_CODECS), [weight for _, _, weight in _CODECS.values()])
        (kind,) = self._random.choices(list(_OPTIONS), [weight for _, weight in _OPTIONS.values()])
        subtype, content_type, _ = _CODECS[codec]
        return Call(kind, _OPTIONS[kind][0], _encoded(seconds, *subtype), content_type, seconds)


def encode_all() -> None:
    """Make every body that a mix may draw, which would otherwise be made, slowly, when it is first drawn."""
    for seconds in _SECONDS:
        for subtype, _, _ in _CODECS.values():
            _encoded(seconds, *subtype)


def headers(environment: Mapping[str, str]) -> dict[str, str]:
    """What every request has: answers must come from the model, and the key in LOAD_API_KEY may be needed."""
    key = environment.get("LOAD_API_KEY")
    return {"Cache-Control": "no-cache", **({"X-API-Key": key} if key else {})}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment asks for.

    Attributes:
        shape: how the number of callers changes (LOAD_SHAPE).
        users: callers at most (LOAD_USERS).
        seconds: how long it takes (LOAD_SECONDS).
        p99: milliseconds that 99 % of the accepted requests must stay below (LOAD_P99_MS).
        error_ratio: share of requests that may fail; refusals with 429 or 503 are not failures (LOAD_ERROR_RATIO).
        refused_ratio: share of requests that may be refused so (LOAD_REFUSED_RATIO).
    """

    shape: Shape
    users: int
    seconds: float
    p99: float
    error_ratio: float
    refused_ratio: float

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Take what is set.

        Raises:
            ValueError: if a value is not usable.
        """
        shape = environment.get("LOAD_SHAPE", "steady")
        if shape not in get_args(Shape):
            raise ValueError(f"LOAD_SHAPE is {shape!r}; it must be one of {', '.join(get_args(Shape))}")
        return cls(
            shape=cast(Shape, shape),
            users=int(environment.get("LOAD_USERS", "10")),
            seconds=float(environment.get("LOAD_SECONDS", "60")),
            p99=float(environment.get("LOAD_P99_MS", "10000")),
            error_ratio=float(environment.get("LOAD_ERROR_RATIO", "0")),
            refused_ratio=float(environment.get("LOAD_REFUSED_RATIO", "1")),
        )

    def users_at(self, second: float) -> int | None:
        """Callers at this time, None when the test is over.

        `steady`: all from the beginning. `step`: a quarter more in each quarter of the time. `spike`: a fifth of them,
        but all in the middle fifth of the time. `soak`: four fifths of them, which come one after another in the first
        twentieth of the time.
        """
        if second >= self.seconds:
            return None
        progress = second / self.seconds
        share = {
            "steady": 1.0,
            "step": (int(4 * progress) + 1) / 4,
            "spike": 1.0 if 0.4 <= progress < 0.6 else 0.2,
            "soak": 0.8 * min(1.0, 20 * progress),
        }[self.shape]
        return max(1, round(share * self.users))

    def failures(self, accepted: int, refused: int, failed: int, p99: float) -> list[str]:
        """Why a test has failed; empty where it has not.

        Args:
            accepted: requests that were answered with 200.
            refused: requests that were answered with 429 or 503.
            failed: all others.
            p99: milliseconds, of the accepted ones.
        """
        total = accepted + refused + failed
        if not accepted:
            return [f"none of {total} requests was accepted"]
        reasons = []
        if p99 > self.p99:
            reasons.append(f"P99 is {p99:.0f} ms; at most {self.p99:.0f} are allowed")
        if failed > self.error_ratio * total:
            reasons.append(f"{failed} of {total} requests failed; a share of {self.error_ratio:g} is allowed")
        if refused > self.refused_ratio * total:
            reasons.append(f"{refused} of {total} requests were refused; a share of {self.refused_ratio:g} is allowed")
        return reasons


@cache
def _encoded(seconds: float, format: str, subtype: str) -> bytes:  # noqa: A002 - soundfile's own name for it
    file = io.BytesIO()
    soundfile.write(file, clips.speech(seconds), SAMPLING_RATE, format=format, subtype=subtype)
    return file.getvalue()
