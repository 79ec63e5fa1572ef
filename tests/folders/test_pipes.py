"""Copies of pipes."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import SetupError
from service.folders import pipes
from service.folders.finding import STANDARD_INPUT, find_files, path_argument
from service.folders.pipes import open_seekable, with_copies


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe into which a thread writes 5000 bytes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with suppress(BrokenPipeError):  # where the test does not read it
            path.write_bytes(bytes(5000))

    threading.Thread(target=write, daemon=True).start()
    return path


def test_arguments() -> None:
    assert path_argument("-") == STANDARD_INPUT
    assert path_argument("./-") == Path("-")


def test_a_file_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    with open_seekable(path) as file:
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())
    with with_copies(find_files([path])) as listing:
        assert listing.files[0].readable_path == path


def test_a_copy_can_be_read_again_and_is_gone_afterwards(pipe: Path, tmp_path: Path) -> None:
    with with_copies(find_files([pipe])) as listing:
        (found,) = listing.files
        assert found.path == pipe
        assert [found.readable_path.read_bytes() for _ in range(2)] == [bytes(5000)] * 2
    assert not found.readable_path.exists()


def test_an_endless_pipe_is_an_error(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_MAX_BYTES", 4000)
    with pytest.raises(SetupError, match="through a pipe"):
        open_seekable(pipe)


def test_a_pipe_that_cannot_be_copied_is_named(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipes, "TemporaryFile", full)
    with pytest.raises(SetupError, match=r"pipe cannot be copied: No space left"), with_copies(find_files([pipe])):
        pass
