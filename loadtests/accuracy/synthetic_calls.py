"""Long two-channel calls, composed of recorded clips, so that the position of each clip is known.

    python -m loadtests.accuracy.synthetic_calls call.wav --seconds 300

Agent and customer take turns on a channel each, sometimes before the other has finished. Each channel has its own
loudness and its own line noise: pink and white noise, with some hum of the mains.
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

from loadtests.common.audio_clips import read_clip, recorded_clips
from service.preprocess.resample_trim import speech_bounds
from service.results import SAMPLING_RATE, Floats

RATE = 8000
GAPS = (0.6, 4.0)
"""Least and greatest seconds between a clip and the next; within a channel, never less."""

LEVELS = (-20.0, -29.0)
"""Mean speech levels of agent and customer in dBFS; telephone networks aim at -26."""

_LEVEL_RANGE = 3.0
"""Greatest difference of a clip from the mean level, in dB."""

_MAX_OVERLAP = 1.0
_OVERLAP_PROBABILITY = 0.15
_TURN_PROBABILITY = 0.75
_NOISE_SECONDS = 30
_HUM_HERTZ = 50

CODECS = {
    "mu-law": ("WAV", "ULAW"),
    "a-law": ("WAV", "ALAW"),
    "pcm": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "gsm": ("WAV", "PCM_16"),
}
"""File format and codec by name. `gsm` is GSM 06.10 decoded to PCM, as recorders at the end of a mobile line write."""


@dataclass(frozen=True, slots=True)
class SpokenClip:
    """A clip in a call.

    Attributes:
        name: of the clip.
        channel: 0 for the agent, 1 for the customer.
        start, end: beginning and end of its speech, in seconds of the call, as the service's trimming finds them in the
            clip alone.
        samples: float32 (time,) at 8 kHz, with the level that it has in the call.
    """

    name: str
    channel: int
    start: float
    end: float
    samples: Floats


@dataclass(frozen=True, slots=True)
class SyntheticCall:
    """float32 samples of shape (2, time) at 8 kHz, and the clips in them, ordered by their beginnings."""

    samples: Floats
    spoken: tuple[SpokenClip, ...]


def source_clips(folder: Path | None, speakers: Collection[str] = ()) -> list[tuple[str, Floats]]:
    """Name and samples at 16 kHz of the clips in a folder, or of the bundled clips if `folder` is None.

    Args:
        folder: searched for FLAC files.
        speakers: see `speaker`; empty for all.

    Raises:
        ValueError: if there are no such clips.
    """
    if folder is None:
        found = dict(recorded_clips())
    else:
        found = {path.stem: read_clip(path) for path in sorted(folder.rglob("*.flac"))}
    chosen = [(name, samples) for name, samples in found.items() if not speakers or speaker(name) in speakers]
    if not chosen:
        raise ValueError("there are no such clips")
    return chosen


def speaker(name: str) -> str:
    """The speaker of a clip, from its name: the part after the last hyphen (RAVDESS), or two letters (EmoDB)."""
    return name.rpartition("-")[2] if "-" in name else name[:2]


def make_call(
    sources: Sequence[tuple[str, Floats]], seconds: float, *, seed: int, noise: tuple[float, float] = (-60.0, -50.0)
) -> SyntheticCall:
    """Compose a call of clips in random order; a clip is repeated only after all others.

    Args:
        sources: names and samples at 16 kHz.
        seconds: the length of the call.
        seed: of all random choices.
        noise: level of the line noise of each channel in dBFS.
    """
    random = np.random.default_rng(seed)
    samples = np.stack([_line_noise(random, level, round(seconds * RATE)) for level in noise])
    spoken: list[SpokenClip] = []
    free = [0.5, 0.5]  # seconds from which the channels are free
    now, channel = 0.5, 0
    order: list[int] = []
    while True:
        order = order or random.permutation(len(sources)).tolist()
        name, clip = sources[order.pop()]
        begin, stop = speech_bounds(clip[np.newaxis], np.array([clip.size]))[0].tolist()
        level = LEVELS[channel] + random.uniform(-_LEVEL_RANGE, _LEVEL_RANGE)
        gain = 10 ** (level / 20) / np.sqrt(np.mean(np.square(clip[begin:stop])))
        voice = soxr.resample(clip, SAMPLING_RATE, RATE) * np.float32(gain)
        first = round(max(now, free[channel]) * RATE)
        end = first + voice.size
        if end > samples.shape[1] - RATE:
            ordered = sorted(spoken, key=lambda each: each.start)
            return SyntheticCall(np.clip(samples, -0.99, 0.99), tuple(ordered))
        samples[channel, first:end] += voice
        start, stop = (first / RATE + sample / SAMPLING_RATE for sample in (begin, stop))
        spoken.append(SpokenClip(name, channel, start, stop, voice))
        free[channel] = end / RATE + GAPS[0]
        now = end / RATE + random.uniform(*GAPS)
        if random.random() < _TURN_PROBABILITY:
            channel = 1 - channel
            if random.random() < _OVERLAP_PROBABILITY:
                now = end / RATE - random.uniform(0, _MAX_OVERLAP)


def encode(samples: Floats, codec: str) -> bytes:
    """Encode float32 samples (channel, time) at 8 kHz in one of `CODECS`."""
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
    """Pink and white noise with hum, at a level in dBFS; 30 s that repeat without a discontinuity."""
    count = min(_NOISE_SECONDS * RATE, size)
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum = np.fft.rfft(random.normal(size=count))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 100)), count)
    white = random.normal(size=count)
    hum = np.sin(2 * np.pi * np.round(_HUM_HERTZ * count / RATE) * np.arange(count) / count + random.uniform(0, 6))
    parts = [share * part / part.std() for share, part in ((0.8, pink), (0.5, white), (0.3, hum))]
    noise = np.sum(parts, axis=0)
    return np.resize((noise / noise.std() * 10 ** (level / 20)).astype(np.float32), size)


def main() -> None:
    """Write a call to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec", choices=list(CODECS), default="mu-law")
    parser.add_argument("--noise", type=float, nargs=2, default=(-60.0, -50.0), help="dBFS in each channel")
    parser.add_argument("--audio", type=Path, help="a folder with flac files instead of the bundled clips")
    parser.add_argument("--speakers", nargs="*", default=())
    arguments = parser.parse_args()
    sources = source_clips(arguments.audio, arguments.speakers)
    call = make_call(sources, arguments.seconds, seed=arguments.seed, noise=tuple(arguments.noise))
    arguments.output.write_bytes(encode(call.samples, arguments.codec))
    print(f"{len(call.spoken)} clips in {arguments.seconds:g} s")


if __name__ == "__main__":
    main()
