"""The order of windows and utterances of a stream."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.api.stream.messages import Start
from service.preprocess.segmentation.utterances import UtteranceCutter
from service.recognition.live.schedule import MOST_WAITING, DueClip, StreamDecoder, StreamSchedule
from service.results import ChannelUtterance, Floats, Utterance
from tests.api.stream.talking import RATE, words


def start(**members: Any) -> Start:
    return Start.model_validate({"type": "start", "sampling_rate": 100 * 16, "encoding": "s16le", **members})


def seconds(length: float, channels: int = 1) -> Floats:
    size = round(length * 1600)
    return np.arange(size * channels, dtype=np.float32).reshape(channels, size)


def utterance(end: float, channel: int = 0) -> ChannelUtterance:
    return ChannelUtterance(channel, Utterance(end - 1, end, np.zeros(1600, np.float32)))


def summary(due: DueClip) -> tuple[str, int, float, float, int]:
    return due.kind, due.channel, due.start, due.end, due.skipped


def test_utterances_come_before_windows_and_channels_one_by_one() -> None:
    schedule = StreamSchedule(start(channels=2, select="split", window=2, hop=1))
    samples = seconds(2, 2)
    schedule.add(samples, [utterance(1.5, 1)], now=7.0)
    clips = []
    while schedule.any_due:
        clips.append(schedule.take())
    assert [summary(due) for due in clips] == [
        ("utterance", 1, 0.5, 1.5, 0),
        ("window", 0, 0.0, 2.0, 0),
        ("window", 1, 0.0, 2.0, 0),
    ]
    assert {due.due for due in clips} == {7.0}
    for due in clips[1:]:
        assert np.array_equal(due.clip.samples, samples[due.channel])
        assert due.clip.samples.base is None, "not a view, which would keep other samples in memory"
        assert not due.clip.trim


def test_of_late_windows_only_the_latest_is_scored() -> None:
    schedule = StreamSchedule(start(window=1, hop=1))
    for now in range(1, 5):
        schedule.add(seconds(1), [], now=float(now))
        assert not schedule.behind
    due = schedule.take()
    assert summary(due) == ("window", 0, 3.0, 4.0, 3)
    assert due.due == 4.0
    assert schedule.skipped == 3
    assert not schedule.any_due


def test_a_window_that_is_left_out_counts_as_skipped() -> None:
    schedule = StreamSchedule(start(channels=2, select="split", window=1, hop=1))
    schedule.add(seconds(1, 2), [], now=1.0)
    schedule.leave_out(schedule.take())
    assert not schedule.any_due
    schedule.add(seconds(1, 2), [], now=2.0)
    first = schedule.take()
    assert first.skipped == 1
    schedule.leave_out(schedule.take())  # only the second channel of it
    schedule.add(seconds(1, 2), [], now=3.0)
    assert schedule.take().skipped == 1
    assert schedule.skipped == 2


def test_with_late_wait_every_window_is_scored() -> None:
    schedule = StreamSchedule(start(window=1, hop=1, late="wait"))
    schedule.add(seconds(3.5), [], now=1.0)
    ends = []
    while schedule.any_due:
        assert schedule.behind
        ends.append(schedule.take().end)
    assert ends == [1.0, 2.0, 3.0]
    assert not schedule.behind
    schedule.end([utterance(3.4)], now=2.0)
    assert schedule.ended
    assert [summary(schedule.take())[:4] for _ in range(2)] == [("utterance", 0, 2.4, 3.4), ("window", 0, 3.0, 3.5)]
    assert schedule.seconds == 3.5


def test_utterances_and_windows_alternate_until_too_many_utterances_wait() -> None:
    schedule = StreamSchedule(start(window=1, hop=1))
    schedule.add(seconds(1), [utterance(float(end)) for end in range(1, 34)], now=1.0)
    kinds = ""
    for _ in range(10):
        kinds += schedule.take().kind[0]
        schedule.add(seconds(1), [], now=1.0)
    assert kinds == "uuuwuwuwuw"
    assert schedule.skipped > 0
    while schedule.any_due:
        schedule.take()
    schedule.add(seconds(1), [], now=1.0)
    assert schedule.take().kind == "window"


def test_utterances_are_not_left_out_and_pause_the_reading() -> None:
    schedule = StreamSchedule(start())
    schedule.add(seconds(1), [utterance(float(end)) for end in range(1, round(MOST_WAITING) + 1)], now=1.0)
    behind = [schedule.behind]
    schedule.add(seconds(1), [utterance(9.0)], now=1.0)
    behind.append(schedule.behind)
    schedule.take()
    behind.append(schedule.behind)
    assert behind == [False, True, False]


def test_the_decoder_returns_utterances_in_the_order_of_their_ends() -> None:
    left, right = words(2.5, 3.0), words(0.8, 2.2, 2.4)
    size = max(left.size, right.size)
    both = np.zeros((size, 2), "<i2")
    both[: left.size, 0], both[: right.size, 1] = left, right
    decoder = StreamDecoder(start(sampling_rate=RATE, channels=2, select="split"))
    found, decoded = [], []
    for begin in range(0, size, 700):
        samples, utterances = decoder.decode(both[begin : begin + 700].tobytes())
        decoded.append(samples)
        found += utterances
    found += decoder.finish()
    whole = np.concatenate(decoded, axis=1)
    assert np.array_equal(whole, both.T.astype(np.float32) / 32768)
    for channel in range(2):
        cutter = UtteranceCutter(RATE)
        expected = [*cutter.push(whole[channel]), *cutter.finish()]
        assert len(expected) >= 2
        utterances_found = [each.utterance for each in found if each.channel == channel]
        assert [(each.start, each.end) for each in utterances_found] == [(each.start, each.end) for each in expected]
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(utterances_found, expected, strict=True))
