"""Runs, as they end and go on."""

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
from service.folders.rows import Summary, write_rows
from service.recognition.options import Options
from tests.folders.double import SourceDouble


def folder(tmp_path: Path, count: int) -> Path:
    directory = tmp_path / "calls"
    directory.mkdir()
    for index in range(count):
        (directory / f"{index:03}.wav").write_text(f"label {index}")
    return directory


def write(directory: Path, out: Path, source: SourceDouble, *, again: bool = False) -> Summary:
    return write_rows(find_files([directory]), source, Options(), out, threads=3, again=again)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def test_every_file_has_a_row_and_a_second_run_does_only_what_is_new(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 10), tmp_path / "r.jsonl"
    source = SourceDouble()
    summary = write(directory, out, source)
    assert (summary.done, summary.known, summary.failed) == (10, 0, 0)
    assert {row["file"]: row["label"] for row in rows(out)} == {f"{i:03}.wav": f"label {i}" for i in range(10)}
    (directory / "new.wav").write_text("new")
    source.asked.clear()
    summary = write(directory, out, source)
    assert (summary.done, summary.known, summary.failed) == (1, 10, 0)
    assert source.asked == ["new.wav"]
    assert len(rows(out)) == 11


def test_a_changed_file_gets_a_new_row_and_loses_its_old_one(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 3), tmp_path / "r.jsonl"
    write(directory, out, SourceDouble())
    (directory / "001.wav").write_text("another label")
    write(directory, out, SourceDouble())
    assert sorted((row["file"], row["label"]) for row in rows(out)) == [
        ("000.wav", "label 0"),
        ("001.wav", "another label"),
        ("002.wav", "label 2"),
    ]


def test_problems_are_rows_and_are_tried_again_when_asked_to(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 4), tmp_path / "r.jsonl"
    source = SourceDouble()
    source.failing = {"002.wav"}
    assert write(directory, out, source).failed == 1
    assert [row["problem"]["code"] for row in rows(out) if "problem" in row] == ["audio_empty"]
    source.failing = set()
    assert write(directory, out, source).failed == 1
    assert write(directory, out, source, again=True).failed == 0
    assert sorted(row["file"] for row in rows(out)) == [f"{i:03}.wav" for i in range(4)]


def test_a_source_that_cannot_go_on_ends_the_run_which_goes_on_later(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 20), tmp_path / "r.jsonl"

    class Ending(SourceDouble):
        def recognize(self, path: Path) -> Any:
            if path.name == "010.wav":
                raise SetupError("The server does not go on.")
            return super().recognize(path)

    with pytest.raises(SetupError, match="does not go on"):
        write(directory, out, Ending(0.002))
    assert 0 < len(rows(out)) < 20
    write(directory, out, SourceDouble())
    assert sorted(row["file"] for row in rows(out)) == [f"{i:03}.wav" for i in range(20)]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be written: No such file"):
        write(folder(tmp_path, 1), tmp_path / "absent" / "r.jsonl", SourceDouble())


def killed_at_some_row(command: list[str], out: Path, more: int) -> None:
    """Run until there are so many more rows, and some time, then kill."""
    before = out.read_bytes().count(b"\n") if out.exists() else 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") >= before + more:
                break
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)


def test_a_run_that_is_killed_goes_on_without_losing_or_repeating_a_file(tmp_path: Path) -> None:
    directory, out = folder(tmp_path, 120), tmp_path / "r.jsonl"
    command = [sys.executable, "-m", "tests.folders.double", str(directory), str(out)]
    for _ in range(2):
        killed_at_some_row([*command, "0.1"], out, random.randint(0, 25))  # 4 s for all, so that it is not over before
    assert len(rows_that_are_whole(out)) < 120
    subprocess.run([*command, "0"], check=True, timeout=60, capture_output=True)
    assert sorted((row["file"], row["label"]) for row in rows(out)) == [
        (f"{i:03}.wav", f"label {i}") for i in range(120)
    ]


def rows_that_are_whole(out: Path) -> list[bytes]:
    return [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
