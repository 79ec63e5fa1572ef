"""The audio files that arguments stand for: files themselves, and what directories hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".aac", ".aif", ".aifc", ".aiff", ".amr", ".asf", ".au", ".awb", ".caf", ".flac", ".gsm", ".m4a",
    ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".snd", ".w64", ".wav", ".wave", ".weba", ".webm",
    ".wma",
})
# fmt: on
"""What the names of audio files in directories end with; a file that is named itself is taken whatever its name."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file.

    Attributes:
        path: as the argument led to it.
        name: relative to the listing's root, with `/`, and fit for JSON.
        size: bytes; None where the file cannot be looked at, as with `modified`.
        modified: seconds since 1970.
    """

    path: Path
    name: str
    size: int | None
    modified: float | None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files, each once, in the order of the arguments and of names below them.

    Attributes:
        root: the directory that was named alone, otherwise the one that holds all that was named.
        unreadable: directories that could not be looked into, and why.
    """

    root: Path
    files: tuple[Found, ...]
    unreadable: tuple[str, ...]


def find_files(arguments: Sequence[Path]) -> Listing:
    """List what the arguments stand for. Hidden files and directories are passed over, links are followed once."""
    root = _root(arguments)
    unreadable: list[str] = []
    found: dict[str, Found] = {}
    for argument in arguments:
        for path in _walk(argument, unreadable) if argument.is_dir() else (argument,):
            name = _name(path, root)
            if name not in found:
                found[name] = _look_at(path, name)
    return Listing(root, tuple(found.values()), tuple(unreadable))


def _root(arguments: Sequence[Path]) -> Path:
    holders = [Path(os.path.abspath(each if each.is_dir() else each.parent)) for each in arguments]  # noqa: PTH100
    return Path(os.path.commonpath(holders))  # abspath, not resolve: links keep the names that people gave them


def _walk(directory: Path, unreadable: list[str]) -> Iterator[Path]:
    """Audio files below a directory, by name; every directory once, whatever links lead to it."""
    seen: set[tuple[int, int]] = set()
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append(f"{current}: {error.strerror}")
            continue
        below: list[Path] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                below.append(Path(entry))
            elif Path(entry.name).suffix.lower() in AUDIO_SUFFIXES and (entry.is_symlink() or entry.is_file()):
                yield Path(entry)  # a link that leads nowhere is told as a file that cannot be read
        waiting.extend(reversed(below))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _name(path: Path, root: Path) -> str:
    relative = Path(os.path.relpath(path, root)).as_posix()
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def _look_at(path: Path, name: str) -> Found:
    try:
        status = path.stat()
    except OSError:  # reading it will fail as well, and say why
        return Found(path, name, None, None)
    return Found(path, name, status.st_size, round(status.st_mtime, 6))
