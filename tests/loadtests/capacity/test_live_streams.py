from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.capacity import live_streams as streams
from loadtests.capacity.live_streams import StreamStep

MARKED = "<!-- streams -->\nold\n<!-- end of streams -->\n"


def test_the_table() -> None:
    step = StreamStep(10, 20.0, delays=[0.1] * 90, skipped=10, utterances=5, posts=[0.2] * 40, failed_posts=1)
    facts = {"date": "today", "revision": "abc", "CPU": "some, 2 cores", "model": "tiny"}
    text = streams.markdown(facts, [StreamStep(0, 20.0, posts=[0.1]), step], 5, 20.0, 1.0)
    assert "| 10 | 4.5 | 10.0% | 0.1 s | 0.1 s | 0.1 s | 2 | 0.2 s | 0.2 s | 1 |" in text
    assert "| 0 | 0 | – | – | – | – |" in text
    assert "5 callers that post 3 s; 20 s of audio" in text


def test_the_audio_of_a_call_has_pauses() -> None:
    samples = streams.call_samples(8.0)
    assert samples.size == 64_000
    assert abs(samples[:24_000]).max() > 1000
    assert abs(samples[24_000:32_000]).max() < 100


def test_flags_and_a_url_exclude_each_other() -> None:
    with pytest.raises(SystemExit, match="flags need a server"):
        streams.main(["--url", "http://127.0.0.1:1", "--", "--model", "tiny"])


@pytest.mark.slow
def test_a_server_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "some" / "streams.json"
    page.write_text(MARKED)
    short = ["--seconds", "5", "--streams", "0", "2", "--posters", "1"]
    assert streams.main([*short, "--document", str(page), "--json", str(figures), "--", "--threads", "1"]) == 0
    none, two = json.loads(figures.read_text())
    assert none["delays"] == []
    assert len(two["delays"]) + two["skipped"] >= 6
    assert two["posts"]
    assert two["utterances"] >= 2
    assert "old" not in page.read_text()
