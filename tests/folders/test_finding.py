"""The files that arguments name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.folders.finding import find_files


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def names(*arguments: Path) -> list[str]:
    return [file.name for file in find_files(arguments).files]


def test_audio_files_of_a_directory_are_found_in_the_order_of_names(tmp_path: Path) -> None:
    make(tmp_path, "b.WAV", "a/z.mp3", "a/b/c.opus", "c.flac", "a.txt", "wav", ".hidden.wav", ".git/x.wav", "a/._m.wav")
    assert names(tmp_path) == ["b.WAV", "c.flac", "a/z.mp3", "a/b/c.opus"]
    listing = find_files([tmp_path])
    assert listing.root == tmp_path
    assert (listing.files[0].path, listing.files[0].size) == (tmp_path / "b.WAV", 5)
    assert listing.files[0].modified == pytest.approx((tmp_path / "b.WAV").stat().st_mtime)
    assert listing.unreadable == ()


def test_files_given_as_arguments_may_have_any_name_and_are_listed_once(tmp_path: Path) -> None:
    make(tmp_path, "call.dat", "d/a.wav", "d/b.wav")
    arguments = [tmp_path / "d" / "b.wav", tmp_path / "call.dat", tmp_path / "d", tmp_path / "absent.wav"]
    assert names(*arguments) == ["d/b.wav", "call.dat", "d/a.wav", "absent.wav"]
    assert find_files(arguments).files[-1].size is None


def test_directories_with_circular_or_several_links_are_visited_once(tmp_path: Path) -> None:
    make(tmp_path, "a/one.wav", "outside/two.wav")
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "a" / "out-again").symlink_to(tmp_path / "outside")
    assert names(tmp_path / "a") == ["one.wav", "out/two.wav"]


def test_broken_links_are_listed_and_pipes_and_directories_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "directory.wav").mkdir()
    assert names(tmp_path) == ["a.wav", "gone.wav"]


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    make(tmp_path, "café.wav")
    assert names(tmp_path) == ["café.wav", "caf\\xe9.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_directory_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "closed/a.wav")
    (tmp_path / "closed").chmod(0)
    listing = find_files([tmp_path])
    (tmp_path / "closed").chmod(0o700)
    assert listing.files == ()
    assert listing.unreadable == (f"{tmp_path / 'closed'}: Permission denied",)


def test_a_directory_that_is_deleted_meanwhile_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.wav", "b/c.wav")

    def scandir(path: Path) -> object:
        if path.name == "b":
            raise FileNotFoundError(2, "No such file or directory")
        return original(path)

    original = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    listing = find_files([tmp_path])
    assert [file.name for file in listing.files] == ["a.wav"]
    assert listing.unreadable == (f"{tmp_path / 'b'}: No such file or directory",)
