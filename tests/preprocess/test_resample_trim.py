"""One contract for resampling and speech bounds, on the host and on the device."""

from __future__ import annotations

import importlib
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

MARGIN = resample_trim.MARGIN


@dataclass(frozen=True, slots=True)
class Side:
    """The two functions, numpy in and numpy out."""

    module: ModuleType
    resample: Callable[[Floats, int], Floats]
    speech_bounds: Callable[[Floats, NDArray[np.int64]], NDArray[np.int64]]


def torch_side(device: str) -> Side:
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

    return Side(module, resample, speech_bounds)


@pytest.fixture(
    params=[
        "host",
        pytest.param("cpu", marks=pytest.mark.torch),
        pytest.param("cuda", marks=[pytest.mark.torch, pytest.mark.gpu]),
    ]
)
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "host":
        return Side(resample_trim, resample_trim.resample, resample_trim.speech_bounds)
    return torch_side(request.param)


RATES = [1_000, 8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 44_101, 48_000, 96_000, 192_000, 768_000]


def tone(rate: int, frequency: float, seconds: float) -> Floats:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate, dtype=np.float64).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_resampled_tone(side: Side, rate: int) -> None:
    resampled = side.resample(tone(rate, 300, 1.0), rate)
    expected = tone(SAMPLING_RATE, 300, 1.0)
    assert resampled.dtype == np.float32
    assert resampled.shape == expected.shape
    middle = slice(1600, -1600)  # both ends ring
    assert np.abs(resampled - expected)[middle].max() < 1e-4


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_what_lies_above_8_khz_does_not_fold_down(side: Side, rate: int) -> None:
    resampled = side.resample(tone(rate, 9_000, 0.5), rate)
    assert np.abs(resampled[1600:-1600]).max() < 1e-4


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [25, 1_000, 1_001, 4_567])
def test_resampled_length(side: Side, rate: int, length: int) -> None:
    assert len(side.resample(np.ones(length, np.float32), rate)) == length * SAMPLING_RATE // rate


def test_16_khz_stays_as_it_is(side: Side) -> None:
    samples = speech()[0]
    assert np.shares_memory(side.resample(samples, SAMPLING_RATE), samples) or side.module is not resample_trim
    assert np.array_equal(side.resample(samples, SAMPLING_RATE), samples)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 44_101, 48_000])
def test_speech_resampled_like_soxr(side: Side, rate: int) -> None:
    """The device's filter is made like soxr's: what differs is 60 dB below the speech."""
    samples = speech(rate)[0]
    resampled = side.resample(samples, rate)
    difference = resampled - soxr.resample(samples, rate, SAMPLING_RATE, "HQ")[: len(resampled)]
    assert np.sqrt(np.mean(np.square(difference))) < 1e-3 * np.sqrt(np.mean(np.square(resampled)))


def bounds(side: Side, *waveforms: Floats) -> list[tuple[int, int]]:
    """Speech bounds of waveforms of shape (time,), as one batch."""
    lengths = np.array([len(waveform) for waveform in waveforms])
    batch = np.zeros((len(waveforms), lengths.max()), np.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    found = side.speech_bounds(batch, lengths)
    assert found.dtype == np.int64
    assert found.shape == (len(waveforms), 2)
    return [(int(begin), int(end)) for begin, end in found]


def padded(samples: Floats, before: int, after: int, noise: float) -> Floats:
    """Speech between stretches of noise."""
    random = np.random.default_rng(before + after)
    both = random.normal(scale=noise, size=before + after).astype(np.float32)
    return np.concatenate([both[:before], samples, both[before:]])


def trimmed(samples: Floats) -> tuple[int, int]:
    """Cut points by definition, a frame at a time; those of `librosa.effects.trim(samples, 40, ...)`."""
    around = np.pad(samples.astype(np.float64), 256)
    frames = range(1 + len(samples) // 128)
    energy = np.array([np.mean(np.square(around[128 * frame : 128 * frame + 512])) for frame in frames])
    loud = np.flatnonzero(10 * np.log10(np.maximum(energy, 1e-10) / energy.max()) > -40)
    return 128 * int(loud[0]), min(len(samples), 128 * int(loud[-1] + 1))


SURROUNDINGS = [(0, 0), (16_000, 8_000), (5_001, 123), (640, 20_077)]


@pytest.mark.parametrize("clip", range(len(CLIPS)))
@pytest.mark.parametrize(("before", "after"), SURROUNDINGS)
def test_cut_points(side: Side, clip: int, before: int, after: int) -> None:
    samples = padded(speech(clip=clip)[0], before, after, 1e-4)
    begin, end = trimmed(samples)
    assert bounds(side, samples) == [(max(0, begin - MARGIN), min(len(samples), end + MARGIN))]


@pytest.mark.slow
@pytest.mark.parametrize("clip", range(len(CLIPS)))
def test_definition_of_cut_points_is_that_of_librosa(clip: int) -> None:
    """Slow on a fresh machine: librosa compiles for a minute when it is first used."""
    from librosa.effects import trim

    for before, after in SURROUNDINGS:
        samples = padded(speech(clip=clip)[0], before, after, 1e-4)
        _, cut = trim(samples, top_db=40, frame_length=512, hop_length=128)
        assert tuple(cut) == trimmed(samples)


def test_a_batch_gives_what_its_clips_give(side: Side) -> None:
    waveforms = [padded(speech(clip=number)[0], 999 * number, 4_000, 1e-4) for number in range(6)]
    waveforms += [waveforms[0][:400], np.zeros(3_000, np.float32), waveforms[1][:16_000], np.ones(401, np.float32)]
    assert bounds(side, *waveforms) == [bounds(side, waveform)[0] for waveform in waveforms]


@pytest.mark.parametrize("length", [400, 511, 512, 513, 640, 128 * 50, 128 * 50 + 1, 128 * 50 - 1])
def test_lengths_around_frames_and_hops(side: Side, length: int) -> None:
    assert bounds(side, np.full(length, 0.1, np.float32)) == [(0, length)]


def test_a_click_is_found_where_it_is(side: Side) -> None:
    samples = np.zeros(32_000, np.float32)
    samples[16_000] = 1
    ((begin, end),) = bounds(side, samples)
    # Every frame of 512 samples that holds the click is loud.
    assert 16_000 - 256 - 128 - MARGIN <= begin <= 16_000 - MARGIN
    assert 16_000 + MARGIN <= end <= 16_000 + 256 + 128 + MARGIN


@pytest.mark.parametrize("length", [400, 1_000, 5_000])
def test_what_is_kept_makes_a_frame(side: Side, length: int) -> None:
    """However short the sound, and wherever it is: the model needs 400 samples."""
    clicks = np.zeros((length // 50, length), np.float32)
    clicks[np.arange(len(clicks)), np.arange(len(clicks)) * 50] = 1
    for begin, end in bounds(side, *clicks):
        assert 0 <= begin < end <= length
        assert end - begin >= MIN_SAMPLES


def test_threshold_of_40_db(side: Side) -> None:
    loud, quiet = np.full(16_000, 0.5, np.float32), np.full(16_000, 0.5, np.float32)
    ((begin, _),) = bounds(side, np.concatenate([quiet * 0.0105, loud]))
    assert begin == 0
    ((begin, _),) = bounds(side, np.concatenate([quiet * 0.0095, loud]))
    assert abs(begin - (16_000 - MARGIN)) <= 256


@pytest.mark.parametrize(("level", "silent"), [(0.0, True), (2.5e-4, True), (4e-4, False)])
def test_silence_is_below_minus_70_dbfs(side: Side, level: float, silent: bool) -> None:
    samples = np.full(16_000, level, np.float32)
    assert bounds(side, samples, speech()[0])[0] == ((0, 0) if silent else (0, 16_000))


@pytest.mark.parametrize("scale", [1e-2, 1.0, 32_768.0, 2.0**31, 1e12])
def test_bounds_do_not_depend_on_scale(side: Side, scale: float) -> None:
    samples = padded(speech()[0], 8_000, 8_000, 1e-4)
    assert bounds(side, samples * np.float32(scale)) == bounds(side, samples)


@pytest.mark.torch
def test_host_and_device_agree() -> None:
    device = torch_side("cpu")
    own = Side(resample_trim, resample_trim.resample, resample_trim.speech_bounds)
    waveforms = [padded(speech(clip=number)[0], 3_000 * number, 5_000, 3e-4) for number in range(6)]
    for one, other in zip(bounds(own, *waveforms), bounds(device, *waveforms), strict=True):
        assert abs(one[0] - other[0]) <= resample_trim.HOP
        assert abs(one[1] - other[1]) <= resample_trim.HOP


@pytest.mark.torch
def test_kernels_are_kept_and_bounded() -> None:
    module = torch_side("cpu").module
    torch = importlib.import_module("torch")
    module._resampler.cache_clear()
    samples = torch.zeros(5_000)
    for rate in (44_100, 44_100, 48_000, 44_101, 11_127):
        module.resample(samples, rate)
    # Odd rates go through the host.
    assert module._resampler.cache_info().misses == 2
    assert module._resampler.cache_info().hits == 1
    for rate in (44_100, 48_000):
        kernel = module._resampler(rate, samples.device).kernel
        assert kernel.numel() == module._kernel_size(rate)
        assert kernel.dtype == torch.float32
