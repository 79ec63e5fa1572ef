from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.inference.backends.buckets import ALIGNMENT, LAUNCH_FRAMES, ROWS, bucket, bucketed, one_by_one

FRAMES = st.lists(st.integers(1, 20_000), min_size=1, max_size=40)


@given(FRAMES, st.integers(0, 20))
def test_every_clip_is_in_one_group_that_holds_it(frames: list[int], extra: int) -> None:
    groups = bucketed(frames, extra)
    assert sorted(index for group in groups for index in group.clips) == list(range(len(frames)))
    for group in groups:
        assert all(frames[index] <= group.frames for index in group.clips)
        assert len(group.clips) <= group.rows
        assert group.rows in ROWS
        assert (group.frames + extra) % ALIGNMENT == 0


@given(FRAMES)
def test_padding_beyond_the_longest_clips_bucket_is_bounded(frames: list[int]) -> None:
    for group in bucketed(frames, 10):
        others = sum(group.frames - frames[index] for index in group.clips[1:])
        empty = (group.rows - len(group.clips)) * group.frames
        assert others <= LAUNCH_FRAMES
        assert empty <= LAUNCH_FRAMES


@given(st.integers(1, 20_000), st.integers(0, 20))
def test_a_bucket_is_at_most_a_quarter_longer(frames: int, extra: int) -> None:
    length = bucket(frames, extra)
    assert frames <= length < frames + max(ALIGNMENT, (frames + extra) / 4)


def test_there_are_few_buckets() -> None:
    assert len({bucket(frames, 10) for frames in range(1, 1500)}) < 25


def test_equal_clips_share_a_batch() -> None:
    (group,) = bucketed([490] * 32, 10)
    assert (group.rows, group.frames) == (32, 502)


def test_one_by_one_pads_nothing() -> None:
    assert [(g.clips, g.rows, g.frames) for g in one_by_one([5, 70])] == [((0,), 1, 5), ((1,), 1, 70)]
