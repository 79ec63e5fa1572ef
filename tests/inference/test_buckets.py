from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.inference.backends.buckets import (
    ALIGNMENT,
    LAUNCH_FRAMES,
    ROWS,
    BatchShape,
    bucket,
    bucketed,
    one_by_one,
    program_shapes,
)

FRAMES = st.lists(st.integers(1, 20_000), min_size=1, max_size=40)
PROGRAMS = st.builds(
    program_shapes, st.just(10), clips=st.integers(1, 32), seconds=st.floats(2, 40, allow_nan=False)
) | st.just(list[BatchShape]())


@given(FRAMES, PROGRAMS)
def test_every_clip_is_in_one_group_that_holds_it(frames: list[int], programs: list[BatchShape]) -> None:
    groups = bucketed(frames, 10, programs)
    assert sorted(index for group in groups for index in group.clips) == list(range(len(frames)))
    for group in groups:
        assert all(frames[index] <= group.shape.frames for index in group.clips)
        assert len(group.clips) <= group.shape.rows
        assert group.shape.rows in ROWS
        assert (group.shape.frames + 10) % ALIGNMENT == 0


@given(FRAMES)
def test_padding_beyond_the_longest_clips_bucket_is_bounded(frames: list[int]) -> None:
    for group in bucketed(frames, 10):
        others = sum(group.shape.frames - frames[index] for index in group.clips[1:])
        empty = (group.shape.rows - len(group.clips)) * group.shape.frames
        assert others <= LAUNCH_FRAMES
        assert empty <= LAUNCH_FRAMES


@given(FRAMES, PROGRAMS)
def test_a_program_costs_little_more_than_none(frames: list[int], programs: list[BatchShape]) -> None:
    for with_programs, without in zip(bucketed(frames, 10, programs), bucketed(frames, 10), strict=True):
        assert with_programs.clips == without.clips
        if with_programs.shape != without.shape:
            assert with_programs.shape in programs
            assert with_programs.shape.area <= without.shape.area + LAUNCH_FRAMES


@given(st.integers(1, 20_000), st.integers(0, 20))
def test_a_bucket_is_at_most_an_eighth_longer(frames: int, extra: int) -> None:
    length = bucket(frames, extra)
    assert frames <= length < frames + max(ALIGNMENT, (frames + extra) / 8)


def test_there_are_few_buckets() -> None:
    assert len({bucket(frames, 10) for frames in range(1, 1500)}) < 40


def test_equal_clips_share_a_batch() -> None:
    (group,) = bucketed([490] * 32, 10)
    assert group.shape == BatchShape(32, 502)


def test_programs_hold_clips_of_exactly_their_length() -> None:
    shapes = program_shapes(10, clips=16, seconds=10)
    assert len(shapes) == 9
    assert [shape.area for shape in shapes] == sorted(shape.area for shape in shapes)
    for seconds, frames in ((2, 99), (5, 249), (10, 499)):
        (group,) = bucketed([frames], 10, shapes)
        assert group.shape in shapes
        assert group.shape.frames < frames + 2 * ALIGNMENT, seconds


def test_limits_bound_the_programs() -> None:
    assert program_shapes(10, clips=1, seconds=2) == [BatchShape(1, 102)]
    shapes = program_shapes(0, clips=32, seconds=40)
    assert len(shapes) == 17
    assert BatchShape(32, 512) in shapes
    assert max(shape.area for shape in shapes) < 1.1 * 320 * 50


def test_groups_that_fit_no_program_keep_their_shape() -> None:
    shapes = program_shapes(10, clips=16, seconds=10)
    (group,) = bucketed([600], 10, shapes)
    assert group.shape not in shapes
    # Sixteen clips of 2.1 s would be padded to 5 s each.
    (group,) = bucketed([104] * 16, 10, shapes)
    assert group.shape == BatchShape(16, bucket(104, 10))


def test_one_by_one_pads_nothing() -> None:
    assert [(g.clips, g.shape) for g in one_by_one([5, 70])] == [((0,), BatchShape(1, 5)), ((1,), BatchShape(1, 70))]
