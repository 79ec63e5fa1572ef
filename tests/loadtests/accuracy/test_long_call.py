from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from emotion2vec_client import Client

from loadtests.accuracy import long_call
from loadtests.accuracy.long_call import LabelledSegment, SegmentationCounts
from loadtests.accuracy.synthetic_calls import SpokenClip, encode, make_call, source_clips
from loadtests.common.server_process import start_service
from service.preprocess.reader import open_reader
from service.preprocess.segmentation.file_utterances import FileCut

NONE = np.empty(0, np.float32)


def spoken(channel: int, start: float, end: float) -> SpokenClip:
    return SpokenClip("clip", channel, start, end, NONE)


def test_segments_are_compared_with_the_clips_of_a_call() -> None:
    clips = [spoken(0, 1, 4), spoken(0, 6, 8), spoken(1, 2, 5), spoken(1, 7, 9), spoken(1, 12, 14)]
    segments = [
        LabelledSegment(0, 1.2, 3.8, "sad"),  # found
        LabelledSegment(0, 5.5, 8.0, "sad"),  # too early
        LabelledSegment(0, 20, 21, "sad"),  # stray
        LabelledSegment(1, 2, 3, "sad"),  # in pieces
        LabelledSegment(1, 3.8, 5, "sad"),
        LabelledSegment(1, 7.25, 9.25, "happy"),  # found
    ]
    counts = long_call.compare(clips, segments, ["sad"] * 5, ["happy"] * 5)
    assert counts[0] == SegmentationCounts(clips=2, found=1, same=1, segments=3, stray=1)
    assert counts[1] == SegmentationCounts(clips=3, found=1, missed=1, split=1, same_section=1, segments=3)
    total = sum(counts.values(), SegmentationCounts())
    assert (total.clips, total.found, total.segments, total.stray) == (5, 2, 6, 1)
    assert total.found_share == 0.4
    assert total.same_share == 0.5
    assert not total.met
    assert SegmentationCounts(clips=20, found=19, same=18).met


def test_the_command_writes_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "some" / "calls.json"
    page.write_text("<!-- calls -->\nold\n<!-- end of calls -->\n")
    arguments = ["--seconds", "20", "--noise", "-60", "-55", "--codec", "a-law", "--document", str(page)]
    assert long_call.main([*arguments, "--json", str(figures)]) == 0
    text = page.read_text()
    assert "\nold\n" not in text
    assert "- model: tiny (" in text
    assert "| a-law | -60, -55 | both | " in text
    assert "| a-law | -55 | 1 | " in text
    assert "| a-law | -60, -55 | both | " in capsys.readouterr().out
    (result,) = json.loads(figures.read_text())["results"]
    assert result["channels"]["0"]["found"] == result["channels"]["0"]["clips"] > 0
    assert 0 < result["first"] <= result["seconds"]
    assert result["cutting"] > 0


def test_clips_of_a_call_are_found() -> None:
    call = make_call(source_clips(None), 300, seed=6)
    with open_reader(encode(call.samples, "mu-law"), max_duration=400) as reader:
        steps = FileCut(reader, channels="split", start=None, end=None).steps()
        found = [utterance for step in steps for utterance in step]
    segments = [LabelledSegment(each.channel, each.utterance.start, each.utterance.end, "") for each in found]
    none = [""] * len(call.spoken)
    counts = sum(long_call.compare(call.spoken, segments, none, none).values(), SegmentationCounts())
    assert counts.clips > 60
    assert counts.found_share >= long_call.FOUND_NEEDED
    assert counts.missed == counts.stray == 0


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["mu-law", "gsm", "opus"])
def test_segments_of_a_call_have_the_labels_of_their_clips_alone(codec: str) -> None:
    """Five minutes of the bundled clips; `docs/accuracy.md` has the figures of an hour."""
    noise = (-60.0, -50.0)
    call = make_call(source_clips(None), 300, seed=5, noise=noise)
    with start_service([]) as server, Client(server.url) as client:
        counts = long_call.measure(call, codec, noise, client).total
    assert counts.clips > 60
    assert counts.met
    assert counts.missed == counts.stray == 0
