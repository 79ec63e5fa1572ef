"""Recognition without a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.accuracy.synthetic_calls import encode, make_call, source_clips
from service.commands.segment_lines import segment_lines
from service.errors import AudioTooLong, AudioTruncated
from service.inference.backend import Backend
from service.inference.backends.select import open_backend
from service.local import recognize_file
from service.model.store import find
from service.recognition.json_encoding import encode as as_json
from service.recognition.options import Options, parse_options
from tests.api.sounds import call
from tests.audio_samples import CLIPS

SEGMENTS = parse_options([("granularity", "segment")])


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    stored = find("tiny", cache=tmp_path_factory.mktemp("cache"), offline=True)
    return open_backend(stored.directory, stored.manifest, device="cpu")


def recognize(backend: Backend, path: Path, options: Options, max_duration: float = 600) -> Any:
    return recognize_file(backend, path, options, max_duration=max_duration)


def scores(answer: dict[str, Any]) -> list[float]:
    return [row["score"] for row in answer["scores"]]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_one_utterance_has_the_scores_of_the_clip(backend: Backend, clip: Path) -> None:
    options = {"embedding": "utterance"}
    alone = recognize(backend, clip, parse_options(options.items()))
    result = recognize(backend, clip, parse_options([("granularity", "segment"), *options.items()]))
    (segment,) = result["segments"]
    speech = alone["audio"]["speech"]
    assert segment["start"] == pytest.approx(speech["start"], abs=0.1)
    assert segment["end"] == pytest.approx(speech["end"], abs=0.1)
    for answered in (segment, result):
        assert answered["label"] == alone["label"]
        np.testing.assert_allclose(scores(answered), scores(alone), atol=1e-3)
        np.testing.assert_allclose(answered["embedding"], alone["embedding"], atol=5e-3)


def test_a_call_in_two_channels(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(encode(make_call(source_clips(None), 60, seed=1).samples, "mu-law"))
    result = recognize(backend, path, parse_options([("granularity", "segment"), ("channels", "split")]))
    assert result["audio"]["narrow_band"]
    assert all(len(channel["segments"]) > 3 for channel in result["channels"])
    lines = list(segment_lines(result))
    count = sum(len(channel["segments"]) for channel in result["channels"])
    assert len(lines) == count + 2
    assert all("channel" in line for line in lines)
    assert lines[-1].startswith("  channel 1, ")
    assert b"".join(as_json(result))


def test_what_is_printed(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(call(70.0, [(1.0, 4.0), (65.0, 68.0)]))
    first, second, overall = segment_lines(recognize(backend, path, SEGMENTS))
    assert first.split()[:3] == ["0:01.0", "–", "0:04.0"]
    assert second.split()[:3] == ["1:05.0", "–", "1:08.0"]
    assert re.fullmatch(r"  all 6\.\d s of speech: \w+ 0\.\d{3}", overall)
    path.write_bytes(call(5.0, []))
    assert list(segment_lines(recognize(backend, path, SEGMENTS))) == ["  all 0.0 s of speech: none"]


def test_limits(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(call(5.0, [(1.0, 4.0)]))
    with pytest.raises(AudioTooLong, match=r"granularity=segment it may last 10 s"):
        recognize_file(backend, path, Options(), max_duration=10, longest_clip=2)
    assert len(recognize(backend, path, SEGMENTS, 10)["segments"]) == 1
    with pytest.raises(AudioTooLong):
        recognize(backend, path, SEGMENTS, 2)


def test_a_file_that_ends_early_is_an_error(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    whole = call(40.0, [(1.0, 4.0), (20.0, 30.0)], container="FLAC")
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    with pytest.raises(AudioTruncated):
        recognize(backend, path, SEGMENTS)
