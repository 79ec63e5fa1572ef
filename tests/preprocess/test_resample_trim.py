"""One contract for resampling and speech bounds, implemented with numpy and soxr and with torch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray

from service.preprocess import resample_trim
from service.results import MIN_SAMPLES, SAMPLING_RATE, Floats
from tests.audio_samples import CLIPS, speech
from tests.rounding import UNIT_ROUNDOFF

MARGIN = resample_trim.MARGIN


@dataclass(frozen=True, slots=True)
class Implementation:
    """The two functions, with numpy arrays as arguments and results."""

    module: ModuleType
    resample: Callable[[Floats, int], Floats]
    speech_bounds: Callable[[Floats, NDArray[np.int64]], NDArray[np.int64]]


def torch_implementation(device: str) -> Implementation:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA")
    module = importlib.import_module("service.preprocess.resample_trim_torch")

    def resample(samples: Floats, rate: int) -> Floats:
        resampled: Floats = module.resample(torch.from_numpy(samples).to(device), rate).cpu().numpy()
        return resampled

    def speech_bounds(waveforms: Floats, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        bounds = module.speech_bounds(torch.from_numpy(waveforms).to(device), torch.from_numpy(lengths).to(device))
        assert bounds.device.type == device
        result: NDArray[np.int64] = bounds.cpu().numpy()
        return result

    return Implementation(module, resample, speech_bounds)


@pytest.fixture(
    params=[
        "numpy",
        pytest.param("torch-cpu", marks=pytest.mark.torch),
        pytest.param("torch-cuda", marks=[pytest.mark.torch, pytest.mark.gpu]),
    ]
)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    if request.param == "numpy":
        return Implementation(resample_trim, resample_trim.resample, resample_trim.speech_bounds)
    return torch_implementation(request.param.removeprefix("torch-"))


RATES = [1_000, 8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 44_101, 48_000, 96_000, 192_000, 768_000]


def tone(rate: int, frequency: float, seconds: float) -> Floats:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate, dtype=np.float64).astype(np.float32)


def tolerance(rate: int) -> float:
    """Largest error of a resampled tone of amplitude 1, away from the ends.

    The filters let pass or reject a tone up to their ripple: soxr's HQ has 20 bits, and a Kaiser window with beta 11.7
    has 11.7 / 0.1102 + 8.7 = 115 dB (2**-19). The sum over all coefficients, 184 at the lower rate and proportionally
    more above 16 kHz, is rounded (see `tests.rounding`); the magnitudes of the coefficients sum up to less than 3.
    """
    coefficients = 184 * max(1.0, rate / SAMPLING_RATE)
    return 2.0**-19 + 3 * math.sqrt(coefficients) * UNIT_ROUNDOFF


@pytest.mark.parametrize("rate", RATES)
def test_resampled_tone(implementation: Implementation, rate: int) -> None:
    resampled = implementation.resample(tone(rate, 300, 1.0), rate)
    expected = tone(SAMPLING_RATE, 300, 1.0)
    assert resampled.dtype == np.float32
    assert resampled.shape == expected.shape
    middle = slice(1600, -1600)  # the filter also covers zeros at both ends
    assert np.abs(resampled - expected)[middle].max() < tolerance(rate)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_a_tone_above_8_khz_is_removed(implementation: Implementation, rate: int) -> None:
    resampled = implementation.resample(tone(rate, 9_000, 0.5), rate)
    assert np.abs(resampled[1600:-1600]).max() < tolerance(rate)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [25, 1_000, 1_001, 4_567])
def test_resampled_length(implementation: Implementation, rate: int, length: int) -> None:
    assert len(implementation.resample(np.ones(length, np.float32), rate)) == length * SAMPLING_RATE // rate


def test_16_khz_is_not_changed(implementation: Implementation) -> None:
    samples = speech()[0]
    resampled = implementation.resample(samples, SAMPLING_RATE)
    assert np.array_equal(resampled, samples)
    if implementation.module is resample_trim:
        assert np.shares_memory(resampled, samples)


@pytest.mark.parametrize("signal", ["speech", "noise"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 44_101, 48_000])
def test_the_filter_is_like_that_of_soxr(implementation: Implementation, rate: int, signal: str) -> None:
    """The filters differ where they begin to attenuate: 60 dB below noise, and less for speech, which is soft there."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=2 * rate).astype(np.float32)
    samples = noise if signal == "noise" else speech(rate)[0]
    resampled = implementation.resample(samples, rate)
    difference = resampled - soxr.resample(samples, rate, SAMPLING_RATE, "HQ")[: len(resampled)]
    assert np.sqrt(np.mean(np.square(difference))) < 1e-3 * np.sqrt(np.mean(np.square(resampled)))


def bounds(implementation: Implementation, *waveforms: Floats) -> list[tuple[int, int]]:
    """Speech bounds of waveforms of shape (time,), as one batch."""
    lengths = np.array([len(waveform) for waveform in waveforms])
    batch = np.zeros((len(waveforms), lengths.max()), np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    found = implementation.speech_bounds(batch, lengths)
    assert found.dtype == np.int64
    assert found.shape == (len(waveforms), 2)
    return [(int(begin), int(end)) for begin, end in found]


def steady(length: int, level: float) -> Floats:
    """A sound of constant energy, without an offset."""
    return np.where(np.arange(length) % 2, level, -level).astype(np.float32)


def padded(samples: Floats, before: int, after: int, noise: float) -> Floats:
    """Speech between stretches of noise."""
    random = np.random.default_rng(before + after)
    both = random.normal(scale=noise, size=before + after).astype(np.float32)
    return np.concatenate([both[:before], samples, both[before:]])


def trimmed(samples: Floats) -> tuple[int, int]:
    """Bounds by definition, a frame at a time; those of `librosa.effects.trim(samples, 40, ...)`.

    No energy may be so near to the threshold that rounding to float32 decides. A sum of 512 squares, in any order, has
    a relative error of at most 513 units of roundoff, since no term is negative, and so has the loudest energy.
    """
    around = np.pad(samples.astype(np.float64), 256)
    frames = range(1 + len(samples) // 128)
    energy = np.array([np.mean(np.square(around[128 * frame : 128 * frame + 512])) for frame in frames])
    relative = energy / (resample_trim.QUIET * energy.max())
    assert np.abs(relative - 1).min() > 2 * 514 * UNIT_ROUNDOFF
    loud = np.flatnonzero(relative > 1)
    return 128 * int(loud[0]), min(len(samples), 128 * int(loud[-1] + 1))


def widened(samples: Floats) -> tuple[int, int]:
    """Bounds by definition, moved outwards by the margin."""
    begin, end = trimmed(samples)
    return max(0, begin - MARGIN), min(len(samples), end + MARGIN)


SURROUNDINGS = [(0, 0), (16_000, 8_000), (5_001, 123), (640, 20_077)]


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize(("before", "after"), SURROUNDINGS)
@pytest.mark.parametrize("noise", [1e-4, 3e-4])
def test_bounds_by_definition(implementation: Implementation, clip: int, before: int, after: int, noise: float) -> None:
    """They are the same to the sample in each implementation."""
    samples = padded(speech(clip=clip)[0], before, after, noise)
    assert bounds(implementation, samples) == [widened(samples)]


@pytest.mark.slow
@pytest.mark.parametrize("clip", range(len(CLIPS)))
def test_the_definition_is_that_of_librosa(clip: int) -> None:
    """Slow: librosa compiles for a minute when it is first used."""
    from librosa.effects import trim

    for before, after in SURROUNDINGS:
        samples = padded(speech(clip=clip)[0], before, after, 1e-4)
        _, cut = trim(samples, top_db=40, frame_length=512, hop_length=128)
        assert tuple(cut) == trimmed(samples)


def test_bounds_in_a_batch(implementation: Implementation) -> None:
    waveforms = [padded(speech(clip=number)[0], 999 * number, 4_000, 1e-4) for number in range(6)]
    waveforms += [waveforms[0][:400], waveforms[1][:16_000], steady(401, 1)]
    expected = [*map(widened, waveforms), (0, 0)]
    assert bounds(implementation, *waveforms, np.zeros(3_000, np.float32)) == expected


@pytest.mark.parametrize("length", [400, 511, 512, 513, 640, 128 * 50, 128 * 50 + 1, 128 * 50 - 1])
def test_lengths_around_frames_and_hops(implementation: Implementation, length: int) -> None:
    assert bounds(implementation, steady(length, 0.1)) == [(0, length)]


def test_a_short_sound_is_found_where_it_is(implementation: Implementation) -> None:
    samples = np.zeros(32_000, np.float32)
    samples[16_000:17_600] = steady(1_600, 1)
    ((begin, end),) = bounds(implementation, samples)
    # Every frame of 512 samples that contains some of it is loud.
    assert 16_000 - 256 - 128 - MARGIN <= begin <= 16_000 - MARGIN
    assert 17_600 + MARGIN <= end <= 17_600 + 256 + 128 + MARGIN


@pytest.mark.parametrize(("length", "sound"), [(400, 1), (1_000, 1), (5_000, 1_600)])
def test_bounds_are_at_least_a_frame_of_the_model_apart(
    implementation: Implementation, length: int, sound: int
) -> None:
    """For any short sound anywhere: the model needs 400 samples."""
    sounds = np.zeros((length // 50, length), np.float32)
    for row, samples in enumerate(sounds):
        begin = min(row * 50, length - sound)
        samples[begin : begin + sound] = steady(sound, 1)
    for begin, end in bounds(implementation, *sounds):
        assert 0 <= begin < end <= length
        assert end - begin >= MIN_SAMPLES


def test_threshold_of_40_db(implementation: Implementation) -> None:
    loud, quiet = steady(16_000, 0.5), steady(16_000, 0.5)
    ((begin, _),) = bounds(implementation, np.concatenate([quiet * 0.0105, loud]))
    assert begin == 0
    ((begin, _),) = bounds(implementation, np.concatenate([quiet * 0.0095, loud]))
    assert 16_000 - MARGIN - 256 <= begin <= 16_000 - MARGIN  # half a frame before its centre


@pytest.mark.parametrize(("level", "silent"), [(0.0, True), (2.5e-4, True), (4e-4, False)])
def test_silence_is_below_minus_70_dbfs(implementation: Implementation, level: float, silent: bool) -> None:
    samples = steady(16_000, level)
    assert bounds(implementation, samples, speech()[0])[0] == ((0, 0) if silent else (0, 16_000))


@pytest.mark.parametrize("scale", [1e-2, 1.0, 32_768.0, 2.0**31, 1e12])
def test_bounds_do_not_depend_on_scale(implementation: Implementation, scale: float) -> None:
    samples = padded(speech()[0], 8_000, 8_000, 1e-4)
    assert bounds(implementation, samples * np.float32(scale)) == [widened(samples)]


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize("offset", [1e-4, 0.005, -0.05, 0.5])
def test_an_offset_does_not_count(implementation: Implementation, clip: int, offset: float) -> None:
    """The bounds may be those of the next frame, since a clip has a small mean of its own."""
    samples = padded(speech(clip=clip)[0], 8_000, 5_001, 1e-5)
    begin, end = widened(samples)
    assert begin > 0
    longer = np.zeros(len(samples) + 20_000, np.float32)
    (found_begin, found_end), silence, same = bounds(implementation, samples + np.float32(offset), longer, samples)
    assert abs(found_begin - begin) <= resample_trim.HOP
    assert abs(found_end - end) <= resample_trim.HOP
    assert silence == (0, 0)
    assert same == (begin, end)


def test_an_offset_that_changes_does_not_count(implementation: Implementation) -> None:
    samples = padded(speech()[0], 24_000, 24_000, 1e-5)
    begin, end = widened(samples)
    shifted = samples.copy()
    shifted[(begin + end) // 2 :] += np.float32(0.02)
    ((found_begin, found_end),) = bounds(implementation, shifted)
    assert abs(found_begin - begin) <= 2 * resample_trim.HOP
    assert abs(found_end - end) <= 2 * resample_trim.HOP


@pytest.mark.parametrize("level", [-1 / 128, 0.3, 1.0])
@pytest.mark.parametrize("length", [400, 1_000, 16_000, 47_777])
def test_a_constant_is_silent(implementation: Implementation, level: float, length: int) -> None:
    assert bounds(implementation, np.full(length, level, np.float32), speech()[0])[0] == (0, 0)


def with_clicks(samples: Floats, *, count: int, seconds: float = 0.032, level: float = 1.0) -> Floats:
    """Noise bursts at even distances."""
    clicked = samples.copy()
    length = round(seconds * SAMPLING_RATE)
    random = np.random.default_rng(count)
    for begin in np.linspace(0, len(samples) - length, count + 2).astype(int)[1:-1]:
        clicked[begin : begin + length] += random.choice([-level, level], length).astype(np.float32)
    return clicked


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("seconds", [1 / SAMPLING_RATE, 0.01, 0.032, 0.05])
def test_clicks_do_not_set_the_threshold(implementation: Implementation, clip: int, count: int, seconds: float) -> None:
    """Some softer frames may be kept in addition, since the level that is held is below that of the loudest frame."""
    samples = speech(clip=clip)[0]
    samples = samples * np.float32(0.01 / np.abs(samples).max())
    begin, end = widened(samples)
    ((found_begin, found_end),) = bounds(implementation, with_clicks(samples, count=count, seconds=seconds))
    assert found_begin <= begin
    assert found_end >= end


def test_silence_with_clicks_is_silent(implementation: Implementation) -> None:
    samples = with_clicks(np.zeros(48_000, np.float32), count=3)
    assert bounds(implementation, samples, speech()[0])[0] == (0, 0)


@pytest.mark.parametrize("length", [400, 1_000, 1_400])
def test_a_clip_no_longer_than_clicks_has_none(implementation: Implementation, length: int) -> None:
    samples = with_clicks(np.zeros(length, np.float32), count=1, seconds=0.01)
    assert bounds(implementation, samples, np.zeros(20_000, np.float32))[0] == (0, length)


@pytest.mark.torch
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_both_implementations_have_the_same_bounds(device: str) -> None:
    """Of clips with offsets and clicks in one batch, and of each alone."""
    clips = [padded(speech(clip=clip)[0], 3_000 * clip, 9_000, 1e-5) for clip in range(4)]
    clips += [clip + np.float32(0.01 * number) for number, clip in enumerate(clips)]
    clips += [with_clicks(clip * np.float32(0.003), count=number + 1) for number, clip in enumerate(clips)]
    clips += [np.full(5_000, 0.3, np.float32), clips[0][:400], with_clicks(clips[1][:1_400], count=1)]
    numpy = Implementation(resample_trim, resample_trim.resample, resample_trim.speech_bounds)
    torch = torch_implementation(device)
    expected = [bounds(numpy, clip)[0] for clip in clips]
    assert bounds(numpy, *clips) == expected
    assert bounds(torch, *clips) == expected
    assert [bounds(torch, clip)[0] for clip in clips] == expected


@pytest.mark.torch
def test_kernels_are_cached_and_bounded() -> None:
    module = torch_implementation("cpu").module
    torch = importlib.import_module("torch")
    module._resampler.cache_clear()
    samples = torch.zeros(5_000)
    for rate in (44_100, 44_100, 48_000, 44_101, 11_127):
        module.resample(samples, rate)
    # Rates with large kernels are resampled by soxr.
    assert module._resampler.cache_info().misses == 2
    assert module._resampler.cache_info().hits == 1
    for rate in (44_100, 48_000):
        kernel = module._resampler(rate, samples.device).kernel
        assert kernel.numel() == module._kernel_size(rate)
        assert kernel.dtype == torch.float32
