"""Runs over many files, their ends and their continuation."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.errors import SetupError
from service.folders.finding import find_files
from service.folders.recognize_files import RunSummary, recognize_files
from service.recognition.options import Options
from tests.folders.double import SourceDouble


def folder(tmp_path: Path, count: int) -> Path:
    directory = tmp_path / "calls"
    directory.mkdir()
    for index in range(count):
        (directory / f"{index:03}.wav").write_text(f"label {index}")
    return directory


def run(directory: Path, out: Path, source: SourceDouble, *, retry_failed: bool = False) -> RunSummary:
    return recognize_files(find_files([directory]), source, Options(), out, threads=3, retry_failed=retry_failed)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def test_every_file_gets_a_row_and_a_second_run_recognises_only_new_files(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 10), tmp_path / "r.jsonl"
    source = SourceDouble()
    summary = run(directory, out, source)
    assert (summary.done, summary.already_done, summary.failed) == (10, 0, 0)
    assert {row["file"]: row["label"] for row in rows(out)} == {f"{i:03}.wav": f"label {i}" for i in range(10)}
    (directory / "new.wav").write_text("new")
    source.recognized.clear()
    summary = run(directory, out, source)
    assert (summary.done, summary.already_done, summary.failed) == (1, 10, 0)
    assert source.recognized == ["new.wav"]
    assert len(rows(out)) == 11


def test_the_row_of_a_changed_file_is_replaced(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 3), tmp_path / "r.jsonl"
    run(directory, out, SourceDouble())
    (directory / "001.wav").write_text("another label")
    run(directory, out, SourceDouble())
    assert sorted((row["file"], row["label"]) for row in rows(out)) == [
        ("000.wav", "label 0"),
        ("001.wav", "another label"),
        ("002.wav", "label 2"),
    ]


def test_problems_are_rows_and_are_retried_only_with_retry_failed(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 4), tmp_path / "r.jsonl"
    source = SourceDouble()
    source.failing = {"002.wav"}
    assert run(directory, out, source).failed == 1
    assert [row["problem"]["code"] for row in rows(out) if "problem" in row] == ["audio_empty"]
    source.failing = set()
    assert run(directory, out, source).failed == 1
    assert run(directory, out, source, retry_failed=True).failed == 0
    assert sorted(row["file"] for row in rows(out)) == [f"{i:03}.wav" for i in range(4)]


def test_a_run_whose_source_fails_ends_and_can_be_continued(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 20), tmp_path / "r.jsonl"

    class Failing(SourceDouble):
        def recognize(self, path: Path) -> Any:
            if path.name == "010.wav":
                raise SetupError("The server cannot continue.")
            return super().recognize(path)

    with pytest.raises(SetupError, match="cannot continue"):
        run(directory, out, Failing(0.002))
    assert 0 < len(rows(out)) < 20
    run(directory, out, SourceDouble())
    assert sorted(row["file"] for row in rows(out)) == [f"{i:03}.wav" for i in range(20)]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be written: No such file"):
        run(folder(tmp_path, 1), tmp_path / "absent" / "r.jsonl", SourceDouble())


def run_and_kill(command: list[str], out: Path, more: int) -> None:
    """Run a command until it has written `more` rows, and a random time longer, then kill it."""
    before = out.read_bytes().count(b"\n") if out.exists() else 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") >= before + more:
                break
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)


def test_a_killed_run_continues_without_losing_or_repeating_a_file(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 120), tmp_path / "r.jsonl"
    command = [sys.executable, "-m", "tests.folders.double", str(directory), str(out)]
    for _ in range(2):
        run_and_kill(
            [*command, "0.1"], out, random.randint(0, 25)
        )  # 4 s for all files, so that it is killed before its end
    assert len(complete_rows(out)) < 120
    subprocess.run([*command, "0"], check=True, timeout=60, capture_output=True)
    assert sorted((row["file"], row["label"]) for row in rows(out)) == [
        (f"{i:03}.wav", f"label {i}") for i in range(120)
    ]


def complete_rows(out: Path) -> list[bytes]:
    return [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
