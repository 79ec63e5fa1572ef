"""The file of rows, and how runs continue it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import SetupError
from service.folders.finding import FoundFile
from service.folders.journal import Journal

PARAMETERS = {"root": "/calls", "model": {"id": "m"}, "options": {}}


def found(name: str, size: int = 1, modified: float = 5.25) -> FoundFile:
    return FoundFile(Path("/calls") / name, name, size, modified)


def journal(directory: Path, **parameters: Any) -> Journal:
    return Journal(directory / "r.jsonl", directory / "r.run.json", {**PARAMETERS, **parameters})


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "r.jsonl").read_bytes().splitlines()]


def fill(directory: Path, *names: str) -> None:
    with journal(directory) as opened:
        for name in names:
            opened.add(found(name), {"label": "happy"})


def test_a_row_names_its_file_and_is_written_immediately(tmp_path: Path) -> None:
    with journal(tmp_path) as opened:
        opened.add(found("a/b.wav"), {"label": "sad", "embedding": np.ones(2, np.float32)})
        assert rows(tmp_path) == [
            {"file": "a/b.wav", "size": 1, "modified": 5.25, "label": "sad", "embedding": [1.0, 1.0]}
        ]
    assert json.loads((tmp_path / "r.run.json").read_text()) == PARAMETERS


def test_files_with_a_row_are_not_pending_unless_they_have_changed(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "c")
    now = [found("a"), found("b", size=2), found("c", modified=6.0), found("d")]
    with journal(tmp_path) as opened:
        assert opened.pending(now, retry_failed=False) == now[1:]
        assert [row["file"] for row in rows(tmp_path)] == ["a"]
        opened.add(now[1], {"label": "angry"})
    assert [(row["file"], row["size"]) for row in rows(tmp_path)] == [("a", 1), ("b", 2)]


def test_files_with_a_problem_are_pending_only_with_retry_failed(tmp_path: Path) -> None:
    with journal(tmp_path) as opened:
        opened.add(found("a"), {"problem": {"code": "audio_empty"}})
        opened.add(found("b"), {"label": "happy"})
    with journal(tmp_path) as opened:
        assert opened.pending([found("a"), found("b")], retry_failed=False) == []
        assert opened.failed([found("a"), found("b"), found("c")]) == 1
        assert opened.pending([found("a"), found("b")], retry_failed=True) == [found("a")]
        opened.add(found("a"), {"label": "sad"})
        assert opened.failed([found("a"), found("b")]) == 0
    assert [row["file"] for row in rows(tmp_path)] == ["b", "a"]


def test_an_incomplete_row_at_the_end_is_removed_and_its_file_is_pending(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    whole = (tmp_path / "r.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        (tmp_path / "r.jsonl").write_bytes(whole[:size])
        with journal(tmp_path) as opened:
            assert opened.pending([found("a"), found("b")], retry_failed=False) == [found("b")]
            opened.add(found("b"), {"label": "happy"})
        assert (tmp_path / "r.jsonl").read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\xff\xfe", b"{}\n"])
def test_invalid_data_at_the_end_as_after_a_power_failure_is_removed(tmp_path: Path, tail: bytes) -> None:
    fill(tmp_path, "a")
    whole = (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").write_bytes(whole + tail)
    with journal(tmp_path) as opened:
        assert opened.pending([found("a")], retry_failed=False) == []
    assert (tmp_path / "r.jsonl").read_bytes() == whole


def test_damage_elsewhere_is_refused_and_the_file_stays_unchanged(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    damaged = b"oops\n" + (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").write_bytes(damaged)
    with pytest.raises(SetupError, match="damaged: line 1 is not a row"):
        journal(tmp_path)
    assert (tmp_path / "r.jsonl").read_bytes() == damaged


def test_a_run_with_other_parameters_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(SetupError, match=r'model \{"id":"m"\}, not \{"id":"n"\}'):
        journal(tmp_path, model={"id": "n"})
    with pytest.raises(SetupError, match="options"):
        journal(tmp_path, options={"trim": False})
    with journal(tmp_path) as opened:
        assert opened.pending([found("a")], retry_failed=False) == []


def test_a_file_that_is_not_a_journal_is_refused_and_stays_unchanged(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("my notes\n")
    with pytest.raises(SetupError, match="not written by this command"):
        journal(tmp_path)
    assert (tmp_path / "r.jsonl").read_text() == "my notes\n"


def test_a_run_that_was_killed_before_its_first_row_can_be_started_again(tmp_path: Path) -> None:
    for parameters in ("", '{"root": "/ca'):
        (tmp_path / "r.run.json").write_text(parameters)
        (tmp_path / "r.jsonl").write_text("")
        fill(tmp_path)
        assert json.loads((tmp_path / "r.run.json").read_text()) == PARAMETERS


def test_two_runs_cannot_use_a_journal_at_the_same_time(tmp_path: Path) -> None:
    with journal(tmp_path), pytest.raises(SetupError, match="another process"):
        journal(tmp_path)
    fill(tmp_path, "a")


def test_a_full_disk_leaves_at_most_an_incomplete_row_at_the_end(tmp_path: Path) -> None:
    with journal(tmp_path) as opened:
        opened.add(found("a"), {"label": "happy"})
        whole = (tmp_path / "r.jsonl").stat().st_size
        original = opened._file

        class FullDisk:
            """Accepts ten bytes, then fails."""

            def write(self, data: bytes) -> int:
                if original.tell() > whole:
                    raise OSError(28, "No space left on device")
                return original.write(data[:10])

            def __getattr__(self, name: str) -> Any:
                return getattr(original, name)

        opened._file = FullDisk()  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space left"):
            opened.add(found("b"), {"label": "sad"})
    with journal(tmp_path) as opened:
        assert opened.pending([found("a"), found("b")], retry_failed=False) == [found("b")]
