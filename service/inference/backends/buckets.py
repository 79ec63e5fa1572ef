"""How the clips of one run are put together: which are padded to one length, and to which.

Shapes come from a small set, so that kernels are chosen and memory is laid out for few of them. A still smaller set can
have programs of their own, compiled beforehand; a group takes one of those where that costs little padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.results import FRAME_HOP, SAMPLING_RATE

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""How many rows a padded batch may have."""

ALIGNMENT = 16
"""Tokens of a padded batch are a multiple of this, which attention kernels need for their bias."""

LAUNCH_FRAMES = 1500
"""Padded frames that are taken to cost as much as running one more batch; more padding than that is split off."""

PROGRAM_ROWS = (1, 4, 16, 32)
PROGRAM_SECONDS = (2, 5, 10, 20, 40)
PROGRAM_TOTAL = 320
"""Rows, lengths, and most seconds over all rows of the batches that may have programs of their own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a program is compiled for: the rows of a padded batch, and the frames of every row."""

    rows: int
    frames: int

    @property
    def area(self) -> int:
        """Frames over all rows."""
        return self.rows * self.frames


@dataclass(frozen=True, slots=True)
class Group:
    """Clips that are encoded together.

    Attributes:
        clips: their indices in the run.
        shape: of the padded batch; rows past the clips are empty, frames past a clip's end are padding.
    """

    clips: tuple[int, ...]
    shape: Shape


def one_by_one(frames: Sequence[int]) -> list[Group]:
    """A batch for every clip, without any padding, given the frames of each."""
    return [Group((index,), Shape(1, count)) for index, count in enumerate(frames)]


def bucketed(frames: Sequence[int], extra: int, programs: Sequence[Shape] = ()) -> list[Group]:
    """Batches of clips of similar lengths, padded to one of few shapes.

    Args:
        frames: of each clip.
        extra: tokens that the encoder puts in front of the frames.
        programs: shapes that are preferred, smallest first.
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
        shape = _program(count, frames[waiting[0]], Shape(rows, length), programs)
        groups.append(Group(tuple(waiting[:count]), shape))
        del waiting[:count]
    return groups


def _program(count: int, longest: int, shape: Shape, programs: Sequence[Shape]) -> Shape:
    """The smallest program that holds a group, if it pads little more than the shape that the group has without."""
    for program in programs:
        if program.rows >= count and program.frames >= longest:
            return program if program.area - shape.area <= LAUNCH_FRAMES else shape
    return shape


def bucket(frames: int, extra: int) -> int:
    """The length in frames that a clip is padded to: eight lengths for every doubling of the tokens."""
    tokens = frames + extra
    step = max(ALIGNMENT, (1 << (tokens - 1).bit_length()) // 16)
    return -(-tokens // step) * step - extra


def program_shapes(extra: int, *, clips: int, seconds: float) -> list[Shape]:
    """The shapes that programs are compiled for, smallest first.

    Args:
        extra: tokens that the encoder puts in front of the frames.
        clips: most rows that one may have.
        seconds: of the longest clip that one must hold.
    """
    shapes = []
    for length in PROGRAM_SECONDS:
        tokens = length * SAMPLING_RATE // FRAME_HOP + extra
        frames = -(-tokens // ALIGNMENT) * ALIGNMENT - extra
        shapes += [Shape(rows, frames) for rows in PROGRAM_ROWS if rows <= clips and rows * length <= PROGRAM_TOTAL]
        if length >= seconds:
            break
    return sorted(shapes, key=_by_area)


def _by_area(shape: Shape) -> tuple[int, int]:
    return shape.area, shape.rows
