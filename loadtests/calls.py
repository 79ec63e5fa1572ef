"""Long two-channel calls, put together from real clips, so that it is known where each one is spoken.

    python -m loadtests.calls call.wav --seconds 300

Agent and customer take turns on a channel each, sometimes before the other one has finished. Each channel has its own
loudness and its own line noise: two thirds pink, with some hum of the mains.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from loadtests.clips import real_clips
from service.preprocess.resample_trim import resample, speech_bounds
from service.results import SAMPLING_RATE, Floats

RATE = 8000
GAPS = (0.6, 4.0)
"""Seconds between a clip and the next one; in the same channel never less."""

LEVELS = (-20.0, -29.0)
"""Mean levels at which agent and customer speak, in dBFS; telephone networks aim at -26."""

_LEVEL_RANGE = 3.0
"""Decibels by which a clip may be louder or softer."""

_OVERLAP = 1.0
_SHARE_OF_OVERLAPS = 0.15
_SHARE_OF_TURNS = 0.75
_NOISE_SECONDS = 30
_HUM = 50

CODECS = {
    "mu-law": ("WAV", "ULAW"),
    "a-law": ("WAV", "ALAW"),
    "pcm": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "gsm": ("WAV", "PCM_16"),
}
"""Container and coding by name. `gsm` is what a recorder writes that stands behind a mobile line."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A clip that is spoken in a call.

    Attributes:
        name: of the clip.
        channel: where it is spoken.
        start, end: seconds of the call at which its speech begins and ends, as the service's own trimming finds them
            in the clip alone.
        samples: float32 (time,) at 8 kHz, as loud as in the call.
    """

    name: str
    channel: int
    start: float
    end: float
    samples: Floats


@dataclass(frozen=True, slots=True)
class Call:
    """float32 samples of shape (2, time) at 8 kHz, and what is spoken in them, in the order of beginnings."""

    samples: Floats
    turns: tuple[Turn, ...]


def clips(folder: Path | None, speakers: Collection[str] = ()) -> list[tuple[str, Floats]]:
    """Name and samples at 16 kHz of the clips in a folder, of the bundled ones without one.

    Args:
        folder: searched for audio.
        speakers: the first two letters of the names wanted (EmoDB), or what is behind the last hyphen (RAVDESS); empty
            for all.

    Raises:
        ValueError: if there are none.
    """
    if folder is None:
        found = dict(real_clips())
    else:
        read = (
            (path.stem, soundfile.read(path, dtype="float32", always_2d=True))
            for path in sorted(folder.rglob("*.flac"))
        )
        found = {name: resample(samples.mean(axis=1), rate) for name, (samples, rate) in read}
    chosen = [(name, samples) for name, samples in found.items() if not speakers or speaker(name) in speakers]
    if not chosen:
        raise ValueError("there are no such clips")
    return chosen


def speaker(name: str) -> str:
    """Who speaks in a clip of EmoDB or RAVDESS."""
    return name.rpartition("-")[2] if "-" in name else name[:2]


def make_call(
    sources: Sequence[tuple[str, Floats]], seconds: float, *, seed: int, noise: tuple[float, float] = (-60.0, -50.0)
) -> Call:
    """Put clips together, in random order and all of them before one comes again.

    Args:
        sources: names and samples at 16 kHz.
        seconds: the length of the call.
        seed: decides everything.
        noise: level of each channel's line noise in dBFS.
    """
    random = np.random.default_rng(seed)
    samples = np.stack([_line_noise(random, level, round(seconds * RATE)) for level in noise])
    turns: list[Turn] = []
    free = [0.5, 0.5]  # seconds from which on the channels may be used
    now, channel = 0.5, 0
    order: list[int] = []
    while True:
        order = order or random.permutation(len(sources)).tolist()
        name, clip = sources[order.pop()]
        begin, stop = speech_bounds(clip[np.newaxis], np.array([clip.size]))[0].tolist()
        level = LEVELS[channel] + random.uniform(-_LEVEL_RANGE, _LEVEL_RANGE)
        gain = 10 ** (level / 20) / np.sqrt(np.mean(np.square(clip[begin:stop])))
        spoken = soxr.resample(clip, SAMPLING_RATE, RATE) * np.float32(gain)
        first = round(max(now, free[channel]) * RATE)
        end = first + spoken.size
        if end > samples.shape[1] - RATE:
            return Call(np.clip(samples, -0.99, 0.99), tuple(sorted(turns, key=lambda turn: turn.start)))
        samples[channel, first:end] += spoken
        start, stop = (first / RATE + sample / SAMPLING_RATE for sample in (begin, stop))
        turns.append(Turn(name, channel, start, stop, spoken))
        free[channel] = end / RATE + GAPS[0]
        now = end / RATE + random.uniform(*GAPS)
        if random.random() < _SHARE_OF_TURNS:
            channel = 1 - channel
            if random.random() < _SHARE_OF_OVERLAPS:
                now = end / RATE - random.uniform(0, _OVERLAP)


def encode(samples: Floats, codec: str) -> bytes:
    """A file in one of `CODECS`, of float32 samples (channel, time) at 8 kHz."""
    if codec == "gsm":
        samples = np.stack([_through_gsm(channel) for channel in samples])
    container, subtype = CODECS[codec]
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, len(samples), format=container, subtype=subtype) as opened:
        for begin in range(0, samples.shape[1], 10 * RATE):  # libsndfile's Vorbis and Opus overflow on long pieces
            opened.write(samples[:, begin : begin + 10 * RATE].T)
    return file.getvalue()


def _through_gsm(samples: Floats) -> Floats:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="RAW", subtype="GSM610")
    form = {"samplerate": RATE, "channels": 1, "format": "RAW", "subtype": "GSM610"}
    decoded = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32", **form)[0]
    return np.asarray(np.resize(decoded, samples.size), np.float32)


def _line_noise(random: np.random.Generator, level: float, size: int) -> Floats:
    """Pink and white noise with hum, of a level in dBFS; it repeats without a seam."""
    count = min(_NOISE_SECONDS * RATE, size)
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(random.normal(size=count))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 100)), count)
    white = random.normal(size=count)
    hum = np.sin(2 * np.pi * np.round(_HUM * count / RATE) * np.arange(count) / count + random.uniform(0, 6))
    parts = [share * part / part.std() for share, part in ((0.8, pink), (0.5, white), (0.3, hum))]
    noise = np.sum(parts, axis=0)
    return np.resize((noise / noise.std() * 10 ** (level / 20)).astype(np.float32), size)


def main() -> None:
    """Write a call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec", choices=list(CODECS), default="mu-law")
    parser.add_argument("--noise", type=float, nargs=2, default=(-60.0, -50.0), help="dBFS in each channel")
    parser.add_argument("--audio", type=Path, help="a folder with flac files instead of the bundled clips")
    parser.add_argument("--speakers", nargs="*", default=())
    arguments = parser.parse_args()
    sources = clips(arguments.audio, arguments.speakers)
    call = make_call(sources, arguments.seconds, seed=arguments.seed, noise=tuple(arguments.noise))
    arguments.output.write_bytes(encode(call.samples, arguments.codec))
    print(f"{len(call.turns)} clips in {arguments.seconds:g} s")


if __name__ == "__main__":
    main()
