"""`recognize`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import service
from service.cli import main

EXAMPLES = Path(service.__file__).resolve().parent / "examples"


def test_recognize_prints_the_emotion_and_says_that_the_model_is_for_demonstration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["recognize", str(EXAMPLES / "happy.wav")]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].endswith("happy.wav (3.10 s)")
    assert lines[1].split()[0] == "happy"
    assert len(lines) == 10
    assert "demonstration" in captured.err


def test_recognize_json_is_one_document_a_line_with_the_options_applied(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(EXAMPLES / name) for name in ("happy.wav", "sad.flac")]
    options = ["--option", "labels=sad,happy", "--option", "granularity=frame", "--option", "window=1"]
    assert main(["recognize", "--json", *options, *files]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["label"] for document in documents] == ["happy", "sad"]
    assert [document["file"] for document in documents] == files
    assert documents[0]["frames"]["labels"] == ["sad", "happy"]
    assert documents[0]["model"]["demonstration"] is True


def test_recognize_goes_on_after_a_bad_file_and_fails_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("these are no samples")
    assert main(["recognize", str(text), str(tmp_path / "missing.wav"), str(EXAMPLES / "sad.flac")]) == 1
    captured = capsys.readouterr()
    assert "notes.wav: " in captured.err
    assert "missing.wav: No such file" in captured.err
    assert "sad.flac" in captured.out


def test_an_unknown_option_is_refused_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recognize", "--option", "granularty=frame", str(EXAMPLES / "sad.flac")]) == 1
    assert "did you mean granularity?" in capsys.readouterr().err


def test_recognition_on_the_cpu_never_imports_torch() -> None:
    program = (
        "import sys; from service.cli import main; "
        f"status = main(['recognize', {str(EXAMPLES / 'happy.wav')!r}]); "
        "heavy = {'torch', 'torchaudio', 'funasr', 'onnx', 'librosa'} & set(sys.modules); "
        "print(sorted(heavy)); sys.exit(status)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
