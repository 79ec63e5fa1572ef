"""The command `recognize`."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.cli import main
from service.data import EXAMPLES
from tests.api.server.test_server import serving
from tests.client.scripted_server import refusal, scripted
from tests.folders.served import ANSWER, MODELS


def test_text_shows_the_scores_and_that_the_model_is_for_demonstration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["recognize", str(EXAMPLES / "happy.wav")]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].endswith("happy.wav (3.10 s)")
    assert lines[1].split()[0] == "happy"
    assert len(lines) == 10
    assert "demonstration" in captured.err


def test_json_is_one_document_per_line_with_the_options_applied(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(EXAMPLES / name) for name in ("happy.wav", "sad.flac")]
    options = ["--option", "labels=sad,happy", "--option", "granularity=frame", "--option", "window=1"]
    assert main(["recognize", "--json", *options, *files]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["label"] for document in documents] == ["happy", "sad"]
    assert [document["file"] for document in documents] == files
    assert documents[0]["frames"]["labels"] == ["sad", "happy"]
    assert documents[0]["model"]["demonstration"] is True


def test_text_has_a_line_for_each_segment(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_bad_files_are_reported_and_the_others_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("not audio")
    assert main(["recognize", str(text), str(tmp_path / "missing.wav"), str(EXAMPLES / "sad.flac")]) == 1
    captured = capsys.readouterr()
    assert "notes.wav: " in captured.err
    assert "missing.wav: No such file" in captured.err
    assert "sad.flac" in captured.out


def test_an_unknown_option_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recognize", "--option", "granularty=frame", str(EXAMPLES / "sad.flac")]) == 1
    assert "did you mean granularity?" in capsys.readouterr().err


def test_a_model_that_does_not_exist_is_reported_once(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["recognize", "--model", "/no/such/model", str(EXAMPLES / "happy.wav")]) == 1
    assert "'/no/such/model' is neither" in capsys.readouterr().err
    assert caplog.records == []


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def test_rows_of_a_directory_equal_the_printed_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.jsonl"
    assert main(["recognize", str(EXAMPLES), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("6 files in ")  # without a progress bar, which is shown on terminals only
    assert main(["recognize", str(EXAMPLES), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_name = {row.pop("file"): row for row in rows(out)}
    assert [Path(document["file"]).name for document in printed] == sorted(by_name)
    for document in printed:
        row = by_name[Path(document.pop("file")).name]
        assert {name: row[name] for name in row if name not in ("size", "modified")} == document


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "r.parquet"
    (tmp_path / "bad.wav").write_text("no audio")
    files = [str(EXAMPLES / "happy.wav"), str(tmp_path / "bad.wav")]
    assert main(["recognize", *files, "--out", str(out), "--option", "embedding=utterance"]) == 1
    table = {row["label"]: row for row in parquet.read_table(out).to_pylist()}
    assert table["happy"]["scores"][0]["label"] == "angry"
    assert len(table["happy"]["embedding"]) > 100
    assert table[None]["problem"]["code"] == "audio_not_decodable"


def test_segments_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    assert main(["recognize", str(EXAMPLES / "happy.wav"), "--out", str(out), "--option", "granularity=segment"]) == 0
    (row,) = rows(out)
    assert [segment["label"] for segment in row["segments"]] == ["happy"]


def test_a_file_of_a_run_with_other_parameters_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.jsonl"
    rest = [str(EXAMPLES / "happy.wav"), "--out", str(out)]
    assert main(["recognize", *rest]) == 0
    assert main(["recognize", *rest, "--option", "trim=false"]) == 1
    assert 'options {}, not {"trim":false}' in capsys.readouterr().err
    assert main(["recognize", str(EXAMPLES.parent / "page"), *rest]) == 1
    assert "root" in capsys.readouterr().err
    assert len(rows(out)) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "r.csv"], ".parquet"),
        (["--out", "r.jsonl", "--json"], "--json"),
        (["--retry-failed"], "--out"),
        (["--concurrency", "0"], "--concurrency"),
        (["--url", "http://127.0.0.1:1", "--model", "tiny", "--config", "c.yaml"], "--config, --model"),
        (["--url", "http://127.0.0.1:1", "--option", "timeout=3"], "timeout"),
    ],
)
def test_flags_that_cannot_be_combined_are_usage_errors(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recognize", "a.wav", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_directory_without_audio_files_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    assert main(["recognize", str(tmp_path), "--out", str(tmp_path / "r.jsonl")]) == 0
    assert "no audio files" in capsys.readouterr().err


def test_a_server_is_called_with_the_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SER_API_KEY", "0123456789abcdef")
    with scripted(MODELS, refusal(), ANSWER) as server:
        assert main(["recognize", str(EXAMPLES), "--url", server.url, "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["label"] for document in documents] == ["sad"] * 6
    assert {request.headers["x-api-key"] for request in server.received} == {"0123456789abcdef"}


def test_local_recognition_ignores_the_key_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_API_KEY", "0123456789abcdef")
    assert main(["recognize", str(EXAMPLES / "happy.wav")]) == 0


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "recognize", str(EXAMPLES), "--out", str(tmp_path / "r.jsonl")]
    terminal, other_end = pty.openpty()
    termios.tcsetwinsize(other_end, (24, 80))
    with os.fdopen(terminal, "rb", buffering=0) as output:
        subprocess.run(command, stderr=other_end, check=True, timeout=60)
        os.close(other_end)
        shown = b""
        with suppress(OSError):  # reading from a closed terminal fails
            while piece := output.read(65_536):
                shown += piece
    assert b"6/6" in shown


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Child processes react to Ctrl+C, even if the tests ignore it, as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupted_run_says_how_to_continue_and_can_be_continued(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    (tmp_path / "calls").mkdir()
    for index in range(400):
        (tmp_path / "calls" / f"{index}.wav").symlink_to(EXAMPLES / "happy.wav")
    command = [sys.executable, "-m", "service.cli", "recognize", str(tmp_path / "calls"), "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out.exists() and out.stat().st_size):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "continues from here" in message
    assert "Traceback" not in message
    done = len(rows(out))
    assert 0 < done < 400
    (tmp_path / "calls" / "0.wav").unlink()
    for index in range(20, 400):
        (tmp_path / "calls" / f"{index}.wav").unlink()
    assert main(command[3:]) == 0
    names = [row["file"] for row in rows(out)]
    assert len(names) == len(set(names))
    assert {f"{index}.wav" for index in range(1, 20)} <= set(names)


@pytest.mark.slow
def test_the_command_continues_after_it_was_killed_at_any_time(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    (tmp_path / "calls").mkdir()
    clips = sorted(EXAMPLES.glob("*.[wf][al]*"))
    for index in range(800):
        (tmp_path / "calls" / f"{index:03}{clips[index % 6].suffix}").symlink_to(clips[index % 6])
    command = [sys.executable, "-m", "service.cli", "recognize", str(tmp_path / "calls"), "--out", str(out)]
    for _ in range(8):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            time.sleep(random.uniform(0.2, 2.0))
            process.kill()
    assert 0 < out.read_bytes().count(b"\n") < 800, "no kill came between the first and the last row"
    assert main(command[3:]) == 0
    found = rows(out)
    assert sorted(row["file"] for row in found) == sorted(path.name for path in (tmp_path / "calls").iterdir())
    expected = {path.name: path.resolve().stem for path in (tmp_path / "calls").iterdir()}
    assert all(row["label"] == expected[row["file"]] for row in found)


@pytest.mark.slow
def test_rows_of_a_server_equal_local_rows(tmp_path: Path) -> None:
    options = ["--option", "embedding=utterance", "--option", "channels=split"]
    local, remote = tmp_path / "local.jsonl", tmp_path / "remote.jsonl"
    assert main(["recognize", str(EXAMPLES), "--out", str(local), *options]) == 0
    with serving() as (_, url):
        assert main(["recognize", str(EXAMPLES), "--out", str(remote), "--url", url, *options]) == 0
        segments = ["--option", "granularity=segment"]
        assert main(["recognize", str(EXAMPLES), "--out", str(tmp_path / "s.jsonl"), "--url", url, *segments]) == 0
    assert main(["recognize", str(EXAMPLES), "--out", str(tmp_path / "t.jsonl"), *segments]) == 0

    def by_name(out: Path) -> list[dict[str, Any]]:
        return sorted(rows(out), key=lambda row: str(row["file"]))

    assert by_name(remote) == by_name(local)
    assert by_name(tmp_path / "s.jsonl") == by_name(tmp_path / "t.jsonl")
