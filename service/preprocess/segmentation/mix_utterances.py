"""Cut the mean of several channels into utterances, or the loudest channel where the mean cancels out."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from service.preprocess.channel_mix import frame_energies, loudest_if_cancelled
from service.preprocess.clips import ChannelChoice, choose
from service.preprocess.segmentation.speech import BLOCK, sample_of
from service.preprocess.segmentation.utterances import LONGEST, UtteranceCutter
from service.results import Floats, Utterance

_MEMORY = round((LONGEST + 15) * 10)
"""Blocks of 0.1 s whose energies are kept: those of the longest utterance, and of the time until it is returned."""


class MixCutter:
    """Cuts the mean of several channels into utterances, or the loudest channel where the mean cancels out.

    The mean and every channel are cut until one of them has an utterance. Its energies decide, once, which of them is
    cut from the beginning to the end; noise before it does not. Until then, memory and time are those of cutting every
    channel by itself. The result does not depend on how the samples are split into pushes.

    Args:
        sampling_rate: in Hz, at least 1000.
        channels: number of channels.

    Attributes:
        taken_channel: the channel that is cut instead of the mean, once that is decided.
    """

    def __init__(self, sampling_rate: int, channels: int) -> None:
        self.taken_channel: int | None = None
        self._rate = sampling_rate
        # The mean comes first. Of one channel, there is nothing to decide.
        self._cutters = [UtteranceCutter(sampling_rate) for _ in range(channels + 1 if channels > 1 else 1)]
        self._waiting: Floats = np.empty((channels, 0), np.float32)
        self._begin = 0  # the first sample that waits
        self._blocks = 0
        self._energies: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=_MEMORY)  # with the end of each block

    @property
    def settled(self) -> float:
        """Seconds; all utterances that end before this have been returned."""
        return min(cutter.settled for cutter in self._cutters)

    def push(self, samples: Floats) -> list[Utterance]:
        """Take the next samples and return the utterances that are now complete, in order.

        Args:
            samples: float32 of shape (channel, time), any number of them.

        Raises:
            AudioNotFinite: samples are NaN, infinite or beyond any plausible scale.
        """
        if len(self._cutters) == 1:
            return self._push_chosen(samples)
        self._waiting = np.concatenate([self._waiting, samples], axis=1)
        found: list[Utterance] = []
        while len(self._cutters) > 1:
            # Exactly at these samples, each cutter decides frames.
            end = sample_of((self._blocks + 1) * BLOCK + 1, self._rate) - self._begin
            if self._waiting.shape[1] < end:
                return found
            found += self._push_block(self._take_waiting(end))
        return found + self._push_chosen(self._take_waiting())

    def finish(self) -> list[Utterance]:
        """Return the remaining utterances. Nothing can be pushed afterwards."""
        found = self._push_block(self._take_waiting()) if self._waiting.size else []
        return found + self._decide([cutter.finish() for cutter in self._cutters])

    def _take_waiting(self, end: int | None = None) -> Floats:
        """Remove and return the samples up to one, or all."""
        taken, rest = self._waiting, np.empty((len(self._waiting), 0), np.float32)
        if end is not None:
            taken, rest = taken[:, :end], taken[:, end:]
        self._waiting = rest
        return taken

    def _push_chosen(self, samples: Floats) -> list[Utterance]:
        """Push samples to the cutter that was chosen."""
        if not samples.size:
            return []
        channels: ChannelChoice = "mix" if self.taken_channel is None else self.taken_channel
        return self._cutters[0].push(choose(samples, channels)[0])

    def _push_block(self, block: Floats) -> list[Utterance]:
        """Push the samples of a block to all cutters."""
        rows = np.stack([*choose(block, "mix"), *choose(block, "split")])
        self._blocks += 1
        self._begin += block.shape[1]
        self._energies.append((self._begin / self._rate, frame_energies(rows, self._rate)))
        return self._decide([cutter.push(row) for cutter, row in zip(self._cutters, rows, strict=True)])

    def _decide(self, found: list[list[Utterance]]) -> list[Utterance]:
        """Decide by the first utterance of any cutter; return those of the one that is chosen."""
        if len(self._cutters) == 1:
            return found[0]
        first = next((utterances[0] for utterances in found if utterances), None)
        if first is None:
            return []
        seconds = BLOCK / 100
        during = [energies for end, energies in self._energies if first.start < end < first.end + seconds]
        of_mean, *of_channels = np.sum(during, axis=0).tolist()
        self.taken_channel = loudest_if_cancelled(np.array(of_channels), of_mean)
        chosen = 0 if self.taken_channel is None else self.taken_channel + 1
        self._cutters = [self._cutters[chosen]]
        return found[chosen]
