"""Results and events as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from service.commands.printing import print_event, print_result
from service.recognition.options import parse_options


def segment(start: float, end: float, **more: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "label": "happy", "score": 0.75, "scores": [], **more}


def printed(
    capsys: pytest.CaptureFixture[str], result: Mapping[str, object], options: Mapping[str, str]
) -> tuple[str, ...]:
    print_result("a.wav", result, parse_options(options.items()))
    return tuple(capsys.readouterr().out.splitlines())


def test_scores_are_sorted_and_shown_as_bars(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "audio": {"duration": 2.5},
        "channels": [{"channel": 1, "label": "sad", "score": 0.5}],
        "scores": [{"label": "sad", "score": 0.2}, {"label": "happy", "score": 0.8}],
    }
    assert printed(capsys, result, {}) == (
        "a.wav (2.50 s)",
        "  channel 1: sad 0.500",
        f"  happy      0.800 {'█' * 24}",
        f"  sad        0.200 {'█' * 6}",
    )


def test_an_early_end_and_unread_bytes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    audio = {"duration": 2.5, "truncated": True, "unread_bytes": 1234}
    (line,) = printed(capsys, {"audio": audio}, {})
    assert line == "a.wav (2.50 s; the file ends early; 1234 bytes behind the audio were not read)"


def test_the_channel_that_was_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    audio = {"duration": 2.5, "taken_channel": 1}
    note = "channel 1 because the mean of all cancels out"
    assert printed(capsys, {"audio": audio}, {}) == (f"a.wav (2.50 s, {note})",)
    print_event({"type": "result", "duration": 2.5, "taken_channel": 1, "speech_seconds": 0.0})
    assert capsys.readouterr().out.splitlines()[0] == f"result over 2.5 s, {note}"


def test_segments_have_their_times_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "audio": {"duration": 70.0, "speech_seconds": 6.25},
        "segments": [segment(1.0, 4.0), segment(65.04, 3605.0)],
        "label": "happy",
        "score": 0.75,
    }
    assert printed(capsys, result, {"granularity": "segment"}) == (
        "a.wav (70.00 s)",
        "    0:01.0 –   0:04.0  happy 0.750",
        "    1:05.0 –  60:05.0  happy 0.750",
        "  all 6.2 s of speech: happy 0.750",
    )


def test_segments_of_channels_are_in_the_order_of_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    channels = [
        {"channel": 0, "speech_seconds": 2.0, "label": "sad", "score": 0.5, "segments": [segment(3.0, 5.0, channel=0)]},
        {"channel": 1, "speech_seconds": 1.0, "label": "happy", "score": 0.75, "segments": [segment(1, 2, channel=1)]},
    ]
    result = {"audio": {"duration": 5.0}, "channels": channels}
    assert printed(capsys, result, {"granularity": "segment"})[1:] == (
        "    0:01.0 –   0:02.0  channel 1: happy 0.750",
        "    0:03.0 –   0:05.0  channel 0: happy 0.750",
        "  channel 0, 2.0 s of speech: sad 0.500",
        "  channel 1, 1.0 s of speech: happy 0.750",
    )


def test_a_recording_without_speech_has_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {"audio": {"duration": 5.0}, "segments": [], "label": None, "score": None}
    assert printed(capsys, result, {"granularity": "segment"})[1:] == ("  all 0.0 s of speech: none",)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"type": "window", **segment(1, 4), "skipped": 2},
            f"window        1.0 –     4.0 s  happy      0.750 {'█' * 22}  (2 left out)",
        ),
        (
            {"type": "utterance", **segment(1, 4, channel=1)},
            "utterance     1.0 –     4.0 s  channel 1  happy      0.750",
        ),
        (
            {"type": "result", "duration": 5.0, "speech_seconds": 3.0, "label": "happy", "score": 0.75},
            "result over 5.0 s\n  3.0 s of speech: happy      0.750",
        ),
        (
            {
                "type": "result",
                "duration": 5.0,
                "channels": [{"channel": 0, "speech_seconds": 0.0, "label": None, "score": None}],
            },
            "result over 5.0 s\n  channel 0, 0.0 s of speech: none",
        ),
    ],
)
def test_events(capsys: pytest.CaptureFixture[str], event: dict[str, Any], line: str) -> None:
    print_event(event)
    assert capsys.readouterr().out == line + "\n"
