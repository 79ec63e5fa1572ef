"""The command, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli import main

EXAMPLES = Path(__file__).resolve().parent.parent / "service" / "examples"


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


def test_recognize_prints_a_line_for_each_segment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recognize", "--option", "granularity=segment", str(EXAMPLES / "happy.wav")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("happy.wav (3.10 s)")
    assert lines[1].split()[-2] == "happy"
    assert "s of speech: happy" in lines[2]
    assert len(lines) == 3


def test_segments_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--option", "granularity=segment", "--option", "channels=split"]
    assert main(["recognize", "--json", *options, str(EXAMPLES / "happy.wav")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [segment["label"] for segment in document["channels"][0]["segments"]] == ["happy"]
    assert document["model"]["demonstration"] is True


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


def test_a_setting_that_is_not_valid_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--port", "99999"]) == 2
    assert "port" in capsys.readouterr().err


def test_check_prints_the_effective_settings_with_their_sources_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef-in-a-file\n")
    monkeypatch.setenv("SER_TIMEOUT", "7")
    monkeypatch.setenv("SER_API_KEYS", "0123456789abcdef")
    assert main(["serve", "--check", "--port", "1234", "--api-keys-file", str(keys)]) == 0
    printed = capsys.readouterr().out
    lines = [line.split("#") for line in printed.splitlines()]
    assert {(value.strip(), source.strip()) for value, source in lines} >= {
        ("port: 1234", "flags: port"),
        ("timeout: 7.0", "environment: SER_TIMEOUT"),
        ("api_keys: ['**********']", "environment: SER_API_KEYS"),
        (f"api_keys_file: {keys}", "flags: api_keys_file"),
        ("model: tiny", "default"),
    }
    assert "0123456789abcdef" not in printed


def test_check_looks_into_the_file_of_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--api-keys-file", str(tmp_path / "absent")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_an_error_that_says_how_to_bring_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "iic/emotion2vec_plus_large", "--offline", "--cache-dir", str(tmp_path)]
    assert main(["serve", *arguments]) == 1
    assert "--model" in capsys.readouterr().err


def test_models_list_names_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--verify", "--cache-dir", str(tmp_path)]) == 0
    assert "tiny" in capsys.readouterr().out


def test_naming_a_prepared_model_needs_a_place_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "prepare", str(tmp_path), "--id", "mine"]) == 2
    assert "--out" in capsys.readouterr().err


def test_recognition_on_the_cpu_never_imports_torch() -> None:
    program = (
        "import sys; from service.cli import main; "
        f"status = main(['recognize', {str(EXAMPLES / 'happy.wav')!r}]); "
        "heavy = {'torch', 'torchaudio', 'funasr', 'onnx', 'librosa'} & set(sys.modules); "
        "print(sorted(heavy)); sys.exit(status)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
