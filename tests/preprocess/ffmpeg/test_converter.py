"""Samples get the rate and the channels with which a file began."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from service.preprocess.ffmpeg.converter import Converter
from service.results import Floats


def joined(blocks: Iterable[Floats]) -> Floats:
    return np.concatenate(list(blocks), axis=1)


def tone(rate: int, channels: int = 1, seconds: float = 1.0) -> Floats:
    wave = np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


@pytest.mark.parametrize(("given", "wanted"), [(48_000, 44_100), (44_100, 48_000), (8_000, 48_000), (192_000, 16_000)])
def test_resampling_keeps_time(given: int, wanted: int) -> None:
    converter = Converter((given, 2), (wanted, 2))
    halves = np.split(tone(given, 2), 2, axis=1)
    found = joined([*converter.convert(halves[0]), *converter.convert(halves[1]), *converter.rest()])
    assert found.shape == (2, wanted)
    middle = slice(wanted // 10, -wanted // 10)
    assert np.abs(found - tone(wanted, 2))[:, middle].max() < 1e-3


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_other_channels_are_the_mean(channels: int) -> None:
    converter = Converter((16_000, 3), (16_000, channels))
    given = np.stack([tone(16_000)[0] * level for level in (0.1, 0.2, 0.6)])
    found = joined([*converter.convert(given), *converter.rest()])
    assert np.allclose(found, np.tile(given.mean(axis=0), (channels, 1)))


def test_blocks_stay_small_at_extreme_rates() -> None:
    converter = Converter((1_000, 1), (768_000, 32))
    blocks = [*converter.convert(tone(1_000)), *converter.rest()]
    assert max(block.size for block in blocks) <= 1 << 20
    assert sum(block.shape[1] for block in blocks) == 768_000
