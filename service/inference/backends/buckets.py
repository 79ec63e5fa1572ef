"""How the clips of one run are put together: which are padded to one length, and to which.

Shapes come from a small set, so that kernels are chosen, memory is laid out, and later programs are compiled, for
few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""How many rows a padded batch may have."""

ALIGNMENT = 16
"""Tokens of a padded batch are a multiple of this, which attention kernels need for their bias."""

LAUNCH_FRAMES = 1500
"""Padded frames that are taken to cost as much as running one more batch; more padding than that is split off."""


@dataclass(frozen=True, slots=True)
class Group:
    """Clips that are encoded together.

    Attributes:
        clips: their indices in the run.
        rows: of the batch; those past the clips are empty.
        frames: of every row; those past a clip's end are padding.
    """

    clips: tuple[int, ...]
    rows: int
    frames: int


def one_by_one(frames: Sequence[int]) -> list[Group]:
    """A batch for every clip, without any padding, given the frames of each."""
    return [Group((index,), 1, count) for index, count in enumerate(frames)]


def bucketed(frames: Sequence[int], extra: int) -> list[Group]:
    """Batches of clips of similar lengths, padded to one of few shapes.

    Args:
        frames: of each clip.
        extra: tokens that the encoder puts in front of the frames.
    """
    groups: list[Group] = []
    waiting = sorted(range(len(frames)), key=lambda index: frames[index], reverse=True)
    while waiting:
        length = bucket(frames[waiting[0]], extra)
        count, padding = 1, 0
        for index in waiting[1 : ROWS[-1]]:
            padding += length - frames[index]
            if padding > LAUNCH_FRAMES:
                break
            count += 1
        rows = next(size for size in ROWS if size >= count)
        if (rows - count) * length > LAUNCH_FRAMES:
            rows = count = max(size for size in ROWS if size <= count)
        groups.append(Group(tuple(waiting[:count]), rows, length))
        del waiting[:count]
    return groups


def bucket(frames: int, extra: int) -> int:
    """The length in frames that a clip is padded to: four lengths for every doubling of the tokens."""
    tokens = frames + extra
    step = max(ALIGNMENT, (1 << (tokens - 1).bit_length()) // 8)
    return -(-tokens // step) * step - extra
