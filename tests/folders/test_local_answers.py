"""Answers of the embedded model without a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.accuracy.synthetic_calls import encode, make_call, source_clips
from service.folders.local_source import LocalSource
from service.inference.backend import Backend
from service.inference.backends.select import open_backend
from service.model.store import find
from service.recognition.json_encoding import encode as as_json
from service.recognition.options import Options, parse_options
from tests.api.sounds import call
from tests.audio_samples import CLIPS
from tests.folders.served import code_of

SEGMENTS = parse_options([("granularity", "segment")])


@pytest.fixture(scope="module")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
    stored = find("tiny", cache=tmp_path_factory.mktemp("cache"), offline=True)
    return lambda: open_backend(stored.directory, stored.manifest, device="cpu")


def recognize(
    open_model: Callable[[], Backend], path: Path, options: Options, max_duration: float = 600, longest: float = 600
) -> Any:
    with LocalSource(open_model, options, max_duration=max_duration, longest_clip=longest) as source:
        return source.recognize(path)


def scores(answer: dict[str, Any]) -> list[float]:
    return [row["score"] for row in answer["scores"]]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_one_utterance_has_the_scores_of_the_clip(open_model: Callable[[], Backend], clip: Path) -> None:
    options = {"embedding": "utterance"}
    alone = recognize(open_model, clip, parse_options(options.items()))
    result = recognize(open_model, clip, parse_options([("granularity", "segment"), *options.items()]))
    (segment,) = result["segments"]
    speech = alone["audio"]["speech"]
    assert segment["start"] == pytest.approx(speech["start"], abs=0.1)
    assert segment["end"] == pytest.approx(speech["end"], abs=0.1)
    for answered in (segment, result):
        assert answered["label"] == alone["label"]
        np.testing.assert_allclose(scores(answered), scores(alone), atol=1e-3)
        np.testing.assert_allclose(answered["embedding"], alone["embedding"], atol=5e-3)


def test_a_call_in_two_channels(open_model: Callable[[], Backend], tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(encode(make_call(source_clips(None), 60, seed=1).samples, "mu-law"))
    result = recognize(open_model, path, parse_options([("granularity", "segment"), ("channels", "split")]))
    assert result["audio"]["narrow_band"]
    assert all(len(channel["segments"]) > 3 for channel in result["channels"])
    assert b"".join(as_json(result))


def test_limits(open_model: Callable[[], Backend], tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(call(5.0, [(1.0, 4.0)]))
    refused = recognize(open_model, path, Options(), 10, 2)
    assert code_of(refused) == "audio_too_long"
    assert "granularity=segment it may last 10 s" in refused["problem"]["detail"]
    assert len(recognize(open_model, path, SEGMENTS, 10)["segments"]) == 1
    assert code_of(recognize(open_model, path, SEGMENTS, 2)) == "audio_too_long"


@pytest.mark.parametrize("options", [Options(), SEGMENTS])
def test_a_file_that_ends_early_is_answered(
    open_model: Callable[[], Backend], tmp_path: Path, options: Options
) -> None:
    path = tmp_path / "talk.wav"
    whole = call(10.0, [(1.0, 4.0)])
    path.write_bytes(whole[: len(whole) // 2])
    audio = recognize(open_model, path, options)["audio"]
    assert audio["truncated"]
    assert audio["duration"] == pytest.approx(5, abs=0.01)


def test_a_damaged_file_is_an_error(open_model: Callable[[], Backend], tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    whole = call(40.0, [(1.0, 4.0), (20.0, 30.0)], container="FLAC")
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    assert code_of(recognize(open_model, path, SEGMENTS)) == "audio_truncated"
