"""Levels and marks of frames, and the regions made from marks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.preprocess.segmentation.speech import (
    FRAMES_PER_SECOND,
    DetectedFrames,
    RegionFinder,
    SpeechDetector,
    sample_of,
)
from service.results import Floats

RATE = 8000


def noise(seconds: float, level: float, rate: int = RATE) -> Floats:
    values = np.random.default_rng(0).normal(0, 10 ** (level / 20), round(seconds * rate))
    return values.astype(np.float32)


def detect(samples: Floats, rate: int = RATE, sizes: Sequence[int] = ()) -> DetectedFrames:
    detector = SpeechDetector(rate)
    found = []
    for size in sizes:
        found.append(detector.push(samples[:size]))
        samples = samples[size:]
    found += [detector.push(samples), detector.finish()]
    levels = np.concatenate([frames.levels for frames in found])
    return DetectedFrames(levels, np.concatenate([frames.marks for frames in found]))


@given(rate=st.integers(1000, 768_000), frame=st.integers(0, 100_000))
def test_frames_follow_one_another(rate: int, frame: int) -> None:
    assert sample_of(frame, rate) == int(frame * rate / FRAMES_PER_SECOND + 1e-9)
    assert sample_of(frame + FRAMES_PER_SECOND, rate) - sample_of(frame, rate) == rate


@pytest.mark.parametrize("rate", [1000, 8000, 11_025, 44_101, 768_000])
def test_there_is_a_frame_for_each_hundredth_of_a_second(rate: int) -> None:
    for extra in (-1, 0, 1):
        samples = np.zeros(rate * 3 // 2 + extra, np.float32)
        frames = detect(samples, rate)
        expected = max(n for n in range(152) if sample_of(n, rate) <= samples.size)
        assert frames.levels.shape == frames.marks.shape == (expected,)


@pytest.mark.parametrize("rate", [1000, 8000, 44_101])
@pytest.mark.parametrize("level", [-65.0, -40.0, -3.0])
def test_levels_are_those_of_full_scale(rate: int, level: float) -> None:
    levels = detect(noise(2.0, level, rate), rate).levels
    # A frame of 10 samples (at 1 kHz) has a variance 0.46 dB too low; the mean of logarithms of three such frames is
    # another 0.16 dB lower, with a standard deviation of 0.14 dB over 2 s.
    assert levels.mean() == pytest.approx(level, abs=1.04)
    # Around 100 float32 samples are rounded by up to 2**-18, which is 0.7 % of noise of -65 dBFS.
    assert np.abs(detect(noise(2.0, level, rate) + 100, rate).levels - levels).max() < 0.1


def test_samples_of_any_scale() -> None:
    loud = detect(np.float32(1e12) * noise(2.0, 0))
    assert np.isfinite(loud.levels).all()
    assert loud.levels.mean() == pytest.approx(240, abs=1.04)


@given(sizes=st.lists(st.integers(0, 3000), max_size=30), rate=st.sampled_from([1000, 8000, 11_025]))
def test_frames_do_not_depend_on_how_samples_are_split(sizes: list[int], rate: int) -> None:
    samples = noise(2.0, -50, rate) * (1 + 30 * (np.sin(np.arange(2 * rate) * 9 / rate) > 0.5)).astype(np.float32)
    together, split = detect(samples, rate), detect(samples, rate, sizes)
    assert np.array_equal(together.levels, split.levels)
    assert np.array_equal(together.marks, split.marks)
    assert set(together.marks) == {0, 2} | set(together.marks)


def marks(frames: DetectedFrames, start: float, end: float) -> NDArray[np.int8]:
    return frames.marks[round(start * FRAMES_PER_SECOND) : round(end * FRAMES_PER_SECOND)]


def test_the_floor_follows_the_noise() -> None:
    samples = np.concatenate([noise(5, -70), noise(5, -50), noise(5, -35), noise(5, -60), noise(1, -45)])
    frames = detect(samples)
    # Louder noise is loud for a second, softer noise never.
    for start in (5, 10):
        assert marks(frames, start + 0.1, start + 0.9).min() == 2
        assert marks(frames, start + 1.1, start + 4.9).max() == 0
    assert marks(frames, 15.1, 19.9).max() == 0
    assert marks(frames, 20.1, 20.9).min() == 2


def test_crosstalk_is_quiet() -> None:
    speech = noise(0.5, -15)
    crosstalk = np.concatenate([noise(0.5, -75), noise(0.4, -58), noise(0.3, -75)])
    samples = np.concatenate([noise(1.5, -75), crosstalk, crosstalk, speech, crosstalk, crosstalk])
    frames = detect(samples)
    assert marks(frames, 2.0, 2.4).max() == 2
    assert marks(frames, 4.1, 4.2).min() == 2
    assert marks(frames, 4.45, 5.3).max() == 0


def test_what_is_silent_for_the_model_is_quiet() -> None:
    quiet = np.concatenate([noise(2, -95), noise(0.5, -72), noise(1, -95)])
    assert detect(quiet).marks.max() == 0
    assert detect(quiet * 4).marks.max() == 2


def regions(parts: Sequence[tuple[int, int]], sizes: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Regions of marks, given as pairs of a mark and its number of frames."""
    whole = np.concatenate([np.full(count, mark, np.int8) for mark, count in parts])
    finder = RegionFinder()
    found = []
    for size in sizes:
        found += finder.push(whole[:size])
        whole = whole[size:]
    found += finder.push(whole) + finder.finish()
    return [(region.start, region.end) for region in found]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0, 50), (2, 10), (0, 50)], [(50, 60)]),
        ([(0, 50), (2, 9), (0, 50)], []),  # a click
        ([(0, 50), (1, 40), (0, 50)], []),  # never loud
        ([(2, 10)], [(0, 10)]),
        ([(0, 50), (1, 5), (2, 10), (1, 7), (0, 50)], [(45 + 5, 50 + 22)]),
        ([(0, 50), (1, 99), (2, 10), (1, 99), (0, 50)], [(119, 189)]),  # at most 0.3 s to each side
        ([(0, 9), (2, 10), (0, 19), (2, 10), (0, 20), (2, 10)], [(9, 48), (68, 78)]),
        ([(0, 9), (2, 5), (0, 19), (2, 5), (0, 99)], [(9, 38)]),  # two short sounds are not a click
        ([(0, 9), (2, 5), (0, 20), (2, 5), (0, 99)], []),
        ([(0, 9), (2, 10), (0, 5), (1, 30), (0, 50)], [(9, 19)]),  # noise after a quiet frame does not extend it
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_regions(parts: list[tuple[int, int]], expected: list[tuple[int, int]], size: int) -> None:
    assert regions(parts, [size] * (400 // size)) == expected


@given(
    parts=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), min_size=1, max_size=30),
    sizes=st.lists(st.integers(0, 90), max_size=30),
)
def test_regions_do_not_depend_on_how_frames_are_split(parts: list[tuple[int, int]], sizes: list[int]) -> None:
    found = regions(parts)
    assert found == regions(parts, sizes)
    loud = np.flatnonzero(np.concatenate([np.full(count, mark) for mark, count in parts]) == 2)
    for start, end in found:
        assert np.count_nonzero((loud >= start) & (loud < end)) >= 10
    for (_, end), (start, _) in pairwise(found):
        assert start - end >= 20


def test_open_and_clear() -> None:
    finder = RegionFinder()

    def after(mark: int, count: int) -> tuple[bool, int]:
        finder.push(np.full(count, mark, np.int8))
        return finder.open is not None, finder.clear

    assert after(0, 50) == (False, 50)
    assert after(1, 10) == (False, 50)
    assert after(1, 40) == (False, 70)  # if the next frame were loud, its region would begin here
    assert after(2, 9) == (False, 70)
    assert after(2, 1) == (True, 70)
    assert after(0, 19) == (True, 70)
    assert after(0, 1) == (False, 130)
