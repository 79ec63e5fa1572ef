"""What a stream has to do next."""

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


def told(job: DueClip) -> tuple[str, int, float, float, int]:
    return job.kind, job.channel, job.start, job.end, job.skipped


def test_utterances_come_before_windows_and_channels_one_by_one() -> None:
    schedule = StreamSchedule(start(channels=2, select="split", window=2, hop=1))
    samples = seconds(2, 2)
    schedule.add(samples, [utterance(1.5, 1)], now=7.0)
    jobs = []
    while schedule.any_due:
        jobs.append(schedule.take())
    assert [told(job) for job in jobs] == [
        ("utterance", 1, 0.5, 1.5, 0),
        ("window", 0, 0.0, 2.0, 0),
        ("window", 1, 0.0, 2.0, 0),
    ]
    assert {job.due for job in jobs} == {7.0}
    for job in jobs[1:]:
        assert np.array_equal(job.clip.samples, samples[job.channel])
        assert job.clip.samples.base is None, "a clip that waits keeps nothing else in memory"
        assert not job.clip.trim


def test_late_windows_are_left_out_as_late_as_possible() -> None:
    schedule = StreamSchedule(start(window=1, hop=1))
    for now in range(1, 5):
        schedule.add(seconds(1), [], now=float(now))
        assert not schedule.behind
    job = schedule.take()
    assert told(job) == ("window", 0, 3.0, 4.0, 3)
    assert job.due == 4.0
    assert schedule.skipped == 3
    assert not schedule.any_due


def test_a_window_without_a_place_counts_as_left_out() -> None:
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


def test_who_wants_every_window_waits_for_it() -> None:
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
    assert [told(schedule.take())[:4] for _ in range(2)] == [("utterance", 0, 2.4, 3.4), ("window", 0, 3.0, 3.5)]
    assert schedule.seconds == 3.5


def test_utterances_and_windows_take_turns_until_too_many_utterances_wait() -> None:
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


def test_utterances_are_never_left_out_and_hold_up_the_audio() -> None:
    schedule = StreamSchedule(start())
    schedule.add(seconds(1), [utterance(float(end)) for end in range(1, round(MOST_WAITING) + 1)], now=1.0)
    behind = [schedule.behind]
    schedule.add(seconds(1), [utterance(9.0)], now=1.0)
    behind.append(schedule.behind)
    schedule.take()
    behind.append(schedule.behind)
    assert behind == [False, True, False]


def test_the_decoder_finds_what_the_cutter_cuts_in_the_order_of_its_end() -> None:
    left, right = words(2.5, 3.0), words(0.8, 2.2, 2.4)
    size = max(left.size, right.size)
    both = np.zeros((size, 2), "<i2")
    both[: left.size, 0], both[: right.size, 1] = left, right
    decoder = StreamDecoder(start(sampling_rate=RATE, channels=2, select="split"))
    found, heard = [], []
    for begin in range(0, size, 700):
        samples, utterances = decoder.decode(both[begin : begin + 700].tobytes())
        heard.append(samples)
        found += utterances
    found += decoder.finish()
    whole = np.concatenate(heard, axis=1)
    assert np.array_equal(whole, both.T.astype(np.float32) / 32768)
    for channel in range(2):
        cutter = UtteranceCutter(RATE)
        expected = [*cutter.push(whole[channel]), *cutter.finish()]
        assert len(expected) >= 2
        mine = [each.utterance for each in found if each.channel == channel]
        assert [(each.start, each.end) for each in mine] == [(each.start, each.end) for each in expected]
        assert all(np.array_equal(a.samples, b.samples) for a, b in zip(mine, expected, strict=True))
