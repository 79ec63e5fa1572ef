"""Groups the clips of one run into padded batches of a few shapes (length buckets).

There are few shapes, so that torch chooses kernels and allocates memory for few of them. For a still smaller set of
shapes, programs are compiled beforehand; a group is padded to one of those where that costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.results import FRAME_HOP, SAMPLING_RATE

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""The numbers of rows that a padded batch may have."""

ALIGNMENT = 16
"""The tokens of a row are a multiple of this, as attention kernels require of their bias."""

LAUNCH_FRAMES = 1500
"""Padded frames that cost about as much as one more batch; clips that would add more padding get another batch."""

PROGRAM_ROWS = (1, 4, 16, 32)
PROGRAM_SECONDS = (2, 5, 10, 20, 40)
PROGRAM_TOTAL = 320
"""Rows and seconds of the shapes that programs are compiled for, and the most seconds over all rows of one."""


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The shape of a padded batch: its rows, and the frames of each row, padding included."""

    rows: int
    frames: int

    @property
    def area(self) -> int:
        """Frames over all rows."""
        return self.rows * self.frames


@dataclass(frozen=True, slots=True)
class Group:
    """Clips that are encoded as one padded batch.

    Attributes:
        clips: the indices of the clips in the run; row i holds clip `clips[i]`.
        shape: of the padded batch; rows past the clips are empty, frames past a clip's end are padding.
    """

    clips: tuple[int, ...]
    shape: BatchShape


def one_by_one(frames: Sequence[int]) -> list[Group]:
    """One batch for each clip, without padding, given the frames of each."""
    return [Group((index,), BatchShape(1, count)) for index, count in enumerate(frames)]


def bucketed(frames: Sequence[int], extra: int, programs: Sequence[BatchShape] = ()) -> list[Group]:
    """Batches of clips of similar lengths, each padded to one of a few shapes.

    Args:
        frames: of each clip.
        extra: tokens that the encoder puts in front of the frames.
        programs: shapes that have a compiled program, smallest first.
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
        shape = _program(count, frames[waiting[0]], BatchShape(rows, length), programs)
        groups.append(Group(tuple(waiting[:count]), shape))
        del waiting[:count]
    return groups


def _program(count: int, longest: int, shape: BatchShape, programs: Sequence[BatchShape]) -> BatchShape:
    """The smallest program's shape that holds a group, if it adds at most `LAUNCH_FRAMES` of padding to `shape`."""
    for program in programs:
        if program.rows >= count and program.frames >= longest:
            return program if program.area - shape.area <= LAUNCH_FRAMES else shape
    return shape


def bucket(frames: int, extra: int) -> int:
    """The frames that a clip of `frames` is padded to; there are eight lengths for each doubling of the tokens."""
    tokens = frames + extra
    step = max(ALIGNMENT, (1 << (tokens - 1).bit_length()) // 16)
    return -(-tokens // step) * step - extra


def program_shapes(extra: int, *, clips: int, seconds: float) -> list[BatchShape]:
    """The shapes that programs are compiled for, smallest first.

    Args:
        extra: tokens that the encoder puts in front of the frames.
        clips: the most rows that one may have.
        seconds: length of the longest clip that one must hold.
    """
    shapes = []
    for length in PROGRAM_SECONDS:
        tokens = length * SAMPLING_RATE // FRAME_HOP + extra
        frames = -(-tokens // ALIGNMENT) * ALIGNMENT - extra
        shapes += [
            BatchShape(rows, frames) for rows in PROGRAM_ROWS if rows <= clips and rows * length <= PROGRAM_TOTAL
        ]
        if length >= seconds:
            break
    return sorted(shapes, key=lambda shape: (shape.area, shape.rows))
