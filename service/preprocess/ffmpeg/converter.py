"""Convert samples to the rate and the channels with which a file began, where they change within it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from service.preprocess.decoding_limits import block_frames
from service.results import Floats


class Converter:
    """Converts the blocks between two changes.

    Where the number of channels differs, every channel gets the mean of the new ones: the file's answer by
    `channels=mix` is then that of the mean throughout, and none of the new channels is lost in another choice.

    Args:
        given: sampling rate in Hz and number of channels.
        wanted: the same for the result.
    """

    def __init__(self, given: tuple[int, int], wanted: tuple[int, int]) -> None:
        given_rate, given_channels = given
        rate, self._channels = wanted
        self._mixed = given_channels != self._channels
        self._longest = block_frames(rate, self._channels)
        self._step = max(1, self._longest * given_rate // rate)
        channels = 1 if self._mixed else given_channels
        self._resampler = None
        if given_rate != rate:
            self._resampler = soxr.ResampleStream(given_rate, rate, channels, dtype="float32", quality="HQ")
        self._nothing = np.zeros((0, channels), np.float32)

    def convert(self, block: Floats) -> Iterator[Floats]:
        """Yield blocks of at most `block_frames` samples, each of shape (channel, time); mostly one."""
        for begin in range(0, block.shape[1], self._step):
            samples = block[:, begin : begin + self._step]
            if self._mixed:
                samples = samples.mean(axis=0, keepdims=True)
            if self._resampler is not None:
                samples = self._resampler.resample_chunk(np.ascontiguousarray(samples.T)).T
            yield from self._divided(samples)

    def rest(self) -> Iterator[Floats]:
        """Yield what the resampler has not returned yet; it cannot be used afterwards."""
        if self._resampler is not None:
            yield from self._divided(self._resampler.resample_chunk(self._nothing, last=True).T)

    def _divided(self, samples: Floats) -> Iterator[Floats]:
        for begin in range(0, samples.shape[1], self._longest):
            part = samples[:, begin : begin + self._longest]
            yield np.repeat(part, self._channels, axis=0) if self._mixed else part
