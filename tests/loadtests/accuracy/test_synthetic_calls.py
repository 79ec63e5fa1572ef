from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from loadtests.accuracy import synthetic_calls as calls
from loadtests.accuracy.synthetic_calls import GAPS, RATE

CLIPS = calls.source_clips(None)


def test_a_seed_always_gives_the_same_call() -> None:
    one, other = (calls.make_call(CLIPS, 30, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.samples, other.samples)
    assert one.samples.shape == (2, 30 * RATE)
    assert one.samples.dtype == np.float32
    another = calls.make_call(CLIPS, 30, seed=4)
    assert [turn.name for turn in another.spoken] != [turn.name for turn in one.spoken]


def test_two_people_take_turns() -> None:
    call = calls.make_call(CLIPS, 240, seed=1)
    assert {turn.channel for turn in call.spoken} == {0, 1}
    overlaps = 0
    for channel in (0, 1):
        own = [turn for turn in call.spoken if turn.channel == channel]
        for turn, following in itertools.pairwise(own):
            assert following.start - turn.end >= GAPS[0]
    for turn, following in zip(call.spoken, call.spoken[1:], strict=False):
        overlaps += following.start < turn.end
        assert following.start - turn.end < GAPS[1] + 0.5
    assert 0 < overlaps < len(call.spoken) / 4
    names = [turn.name for turn in call.spoken]
    assert len(set(names[: len(CLIPS) // 2])) == len(CLIPS) // 2


def test_clips_are_where_the_call_says() -> None:
    call = calls.make_call(CLIPS, 60, seed=2, noise=(-80, -80))
    for turn in call.spoken:
        said = call.samples[turn.channel, round(turn.start * RATE) : round(turn.end * RATE)]
        assert said.std() > 0.9 * turn.samples.std()
        silence = call.samples[turn.channel, round((turn.end + 0.1) * RATE) : round((turn.end + 0.4) * RATE)]
        assert silence.std() < 0.1 * said.std()


@pytest.mark.parametrize("levels", [(-60.0, -45.0), (-50.0, -70.0)])
def test_noise_has_the_level_asked_for(levels: tuple[float, float]) -> None:
    start = calls.make_call(CLIPS, 10, seed=0, noise=levels).samples[:, : RATE // 2]
    assert 20 * np.log10(start.std(axis=1)) == pytest.approx(levels, abs=1.0)


@pytest.mark.parametrize("codec", list(calls.CODECS))
def test_codecs_preserve_the_waveform(codec: str) -> None:
    call = calls.make_call(CLIPS, 12, seed=0)
    decoded, rate = soundfile.read(io.BytesIO(calls.encode(call.samples, codec)), dtype="float32")
    assert rate == RATE
    assert decoded.shape == call.samples.T.shape
    assert np.corrcoef(decoded[:, 0], call.samples[0])[0, 1] > (0.8 if codec in ("gsm", "opus") else 0.99)


def test_speakers() -> None:
    assert calls.speaker("03a02Nc") == "03"
    assert calls.speaker("03-01-05-01-01-01-17") == "17"
    assert {calls.speaker(name) for name, _ in calls.source_clips(None, ["09", "14"])} == {"09", "14"}
    with pytest.raises(ValueError, match="no such clips"):
        calls.source_clips(None, ["99"])


def test_clips_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "03a.flac", np.zeros((4800, 2)), 48_000)
    ((name, samples),) = calls.source_clips(tmp_path)
    assert name == "03a"
    assert samples.shape == (1600,)


def test_the_command_writes_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "call.wav"
    monkeypatch.setattr("sys.argv", ["calls", str(path), "--seconds", "12", "--codec", "a-law"])
    calls.main()
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.duration) == (RATE, 2, "ALAW", 12.0)
