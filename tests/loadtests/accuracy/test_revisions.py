from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from loadtests.accuracy import revisions
from loadtests.common.paths import ROOT
from tests.api.sounds import wav


@pytest.mark.slow
def test_a_checkout_has_the_answers_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "OPTIONS", ({}, {"granularity": "frame"}, {"channels": "7"}, {}, {}))
    monkeypatch.setattr(revisions, "STREAMS", ({},))
    file = tmp_path / "clip.wav"
    file.write_bytes(wav(1.0))
    first, second = (revisions.answers(ROOT, [file]) for _ in range(2))
    assert first == second
    assert first["HTTP, clip.wav, {}"][0] == 200
    assert first["HTTP, clip.wav, {'channels': '7'}"][0] == 422
    assert first["stream, clip.wav, {}"][-1]["type"] == "result"
    assert "scores" in first["folder, {}"]["clip.wav"]


def test_a_directory_without_the_package_is_not_compared_as_this_checkout(tmp_path: Path) -> None:
    command = revisions._command(tmp_path, "models", "list")
    run = subprocess.run(command, env=revisions._environment(tmp_path), capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "another checkout was imported" in run.stderr


@pytest.mark.parametrize(("theirs", "status"), [({"a": 1}, 0), ({"a": 2}, 1), ({"b": 1}, 1)])
def test_what_differs_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], theirs: dict[str, int], status: int
) -> None:
    monkeypatch.setattr(revisions, "audio_files", lambda _: [])
    monkeypatch.setattr(revisions, "answers", lambda checkout, _: {"a": 1} if checkout == ROOT else theirs)
    monkeypatch.setattr("sys.argv", ["revisions", "/elsewhere"])
    assert revisions.main() == status
    assert ("a\n" in capsys.readouterr().out) == bool(status)


def test_the_bundled_audio_is_there(tmp_path: Path) -> None:
    files = revisions.audio_files(tmp_path)
    assert len(files) == 13
    assert all(file.is_file() for file in files)
