"""Rows that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import SetupError
from service.folders.finding import Found
from service.folders.journal import Journal

ASKED = {"root": "/calls", "model": {"id": "m"}, "options": {}}


def found(name: str, size: int = 1, modified: float = 5.25) -> Found:
    return Found(Path("/calls") / name, name, size, modified)


def journal(directory: Path, **asked: Any) -> Journal:
    return Journal(directory / "r.jsonl", directory / "r.run.json", {**ASKED, **asked})


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "r.jsonl").read_bytes().splitlines()]


def fill(directory: Path, *names: str) -> None:
    with journal(directory) as opened:
        for name in names:
            opened.add(found(name), {"label": "happy"})


def test_a_row_says_which_file_it_is_and_is_in_the_file_at_once(tmp_path: Path) -> None:
    with journal(tmp_path) as opened:
        opened.add(found("a/b.wav"), {"label": "sad", "embedding": np.ones(2, np.float32)})
        assert rows(tmp_path) == [
            {"file": "a/b.wav", "size": 1, "modified": 5.25, "label": "sad", "embedding": [1.0, 1.0]}
        ]
    assert json.loads((tmp_path / "r.run.json").read_text()) == ASKED


def test_files_with_a_row_are_not_to_be_done_unless_they_have_changed(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "c")
    now = [found("a"), found("b", size=2), found("c", modified=6.0), found("d")]
    with journal(tmp_path) as opened:
        assert opened.to_do(now, again=False) == now[1:]
        assert [row["file"] for row in rows(tmp_path)] == ["a"]
        opened.add(now[1], {"label": "angry"})
    assert [(row["file"], row["size"]) for row in rows(tmp_path)] == [("a", 1), ("b", 2)]


def test_problems_are_done_again_only_if_asked_for(tmp_path: Path) -> None:
    with journal(tmp_path) as opened:
        opened.add(found("a"), {"problem": {"code": "audio_empty"}})
        opened.add(found("b"), {"label": "happy"})
    with journal(tmp_path) as opened:
        assert opened.to_do([found("a"), found("b")], again=False) == []
        assert opened.failed([found("a"), found("b"), found("c")]) == 1
        assert opened.to_do([found("a"), found("b")], again=True) == [found("a")]
        opened.add(found("a"), {"label": "sad"})
        assert opened.failed([found("a"), found("b")]) == 0
    assert [row["file"] for row in rows(tmp_path)] == ["b", "a"]


def test_half_a_row_at_the_end_is_done_again_wherever_it_was_cut(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    whole = (tmp_path / "r.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        (tmp_path / "r.jsonl").write_bytes(whole[:size])
        with journal(tmp_path) as opened:
            assert opened.to_do([found("a"), found("b")], again=False) == [found("b")]
            opened.add(found("b"), {"label": "happy"})
        assert (tmp_path / "r.jsonl").read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\xff\xfe", b"{}\n"])
def test_rubbish_at_the_end_as_a_power_failure_leaves_it_is_dropped(tmp_path: Path, tail: bytes) -> None:
    fill(tmp_path, "a")
    whole = (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").write_bytes(whole + tail)
    with journal(tmp_path) as opened:
        assert opened.to_do([found("a")], again=False) == []
    assert (tmp_path / "r.jsonl").read_bytes() == whole


def test_damage_elsewhere_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    damaged = b"oops\n" + (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").write_bytes(damaged)
    with pytest.raises(SetupError, match="damaged in line 1"):
        journal(tmp_path)
    assert (tmp_path / "r.jsonl").read_bytes() == damaged


def test_rows_that_answer_another_question_are_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    with pytest.raises(SetupError, match=r'model \{"id":"m"\}, not \{"id":"n"\}'):
        journal(tmp_path, model={"id": "n"})
    with pytest.raises(SetupError, match="options"):
        journal(tmp_path, options={"trim": False})
    with journal(tmp_path) as opened:
        assert opened.to_do([found("a")], again=False) == []


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("my notes\n")
    with pytest.raises(SetupError, match="not written by this command"):
        journal(tmp_path)
    assert (tmp_path / "r.jsonl").read_text() == "my notes\n"


def test_a_process_that_died_before_its_first_row_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    for beside in ("", '{"root": "/ca'):
        (tmp_path / "r.run.json").write_text(beside)
        (tmp_path / "r.jsonl").write_text("")
        fill(tmp_path)
        assert json.loads((tmp_path / "r.run.json").read_text()) == ASKED


def test_two_runs_do_not_write_at_the_same_time(tmp_path: Path) -> None:
    with journal(tmp_path), pytest.raises(SetupError, match="another process"):
        journal(tmp_path)
    fill(tmp_path, "a")


def test_a_full_disk_leaves_at_most_half_a_row(tmp_path: Path) -> None:
    with journal(tmp_path) as opened:
        opened.add(found("a"), {"label": "happy"})
        whole = (tmp_path / "r.jsonl").stat().st_size
        original = opened._file

        class Full:
            """Takes ten bytes, then fails."""

            def write(self, data: bytes) -> int:
                if original.tell() > whole:
                    raise OSError(28, "No space left on device")
                return original.write(data[:10])

            def __getattr__(self, name: str) -> Any:
                return getattr(original, name)

        opened._file = Full()  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space left"):
            opened.add(found("b"), {"label": "sad"})
    with journal(tmp_path) as opened:
        assert opened.to_do([found("a"), found("b")], again=False) == [found("b")]
