"""The files that arguments name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.folders.finding import AUDIO_SUFFIXES, find_files
from service.preprocess.decode import decode
from tests.audio_samples import AMR, AMR_WB, encode, encode_av, speech

FORMATS_OF_SUFFIXES = {
    "wav-s16": ".wav .wave .bwf",
    "rf64": ".rf64",
    "w64": ".w64",
    "aiff": ".aif .aifc .aiff",
    "au": ".au .snd",
    "caf": ".caf",
    "flac": ".flac",
    "ogg-vorbis": ".oga .ogg .ogv .ogx",
    "ogg-opus": ".opus",
    "gsm": ".gsm",
    "mp3": ".mp3 .mpga",
    "m4a": ".m4a .m4b .m4r",
    "mp4": ".mp4 .m4v .f4a .f4v",
    "mov": ".mov .qt",
    "aac": ".aac .adts",
    "mpegts": ".m2ts .mts .ts",
    "webm": ".weba .webm",
    "matroska": ".mka .mkv",
    "3gp": ".3ga .3gp .3gpp",
    "wma": ".asf .wma .wmv",
    "3g2": ".3g2 .3gp2 .3gpp2",
    "mp2": ".mp2 .mpa",
    "spx": ".spx",
    "amr": ".amr",
    "awb": ".awb",
}
OTHER_MUXERS = {"3g2": "aac", "mp2": "mp2", "spx": "libspeex"}
UNTESTED_SUFFIXES = {".mp1"}  # nothing here encodes MPEG layer I


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


@pytest.mark.parametrize("form", FORMATS_OF_SUFFIXES)
def test_the_suffixes_of_a_format_that_is_decoded_are_found(tmp_path: Path, form: str) -> None:
    data = encoded(form)
    assert decode(data, max_duration=30).samples.size
    suffixes = FORMATS_OF_SUFFIXES[form].split()
    for suffix in suffixes:
        (tmp_path / f"a{suffix}").write_bytes(data)
    assert sorted(names(tmp_path)) == sorted(f"a{suffix}" for suffix in suffixes)


def encoded(form: str) -> bytes:
    if form in ("amr", "awb"):
        return (AMR if form == "amr" else AMR_WB).read_bytes()
    rate = 8_000 if form == "gsm" else 16_000
    samples = speech(rate)
    return encode_av(samples, rate, form, OTHER_MUXERS[form]) if form in OTHER_MUXERS else encode(form, samples, rate)


def test_every_suffix_has_a_format() -> None:
    tested = {suffix for suffixes in FORMATS_OF_SUFFIXES.values() for suffix in suffixes.split()}
    assert tested | UNTESTED_SUFFIXES == AUDIO_SUFFIXES | {".ts", ".mts"}


def test_the_page_offers_the_same_suffixes() -> None:
    page = Path(__file__).parents[2] / "service" / "page" / "index.html"
    accept = page.read_text(encoding="utf-8").partition('accept="')[2].partition('"')[0]
    assert accept.split(",") == ["audio/*", "video/*", *sorted(AUDIO_SUFFIXES)]


def test_transport_streams_are_told_from_source_code(tmp_path: Path) -> None:
    stream = encoded("mpegts")
    with_times = b"".join(b"\0\0\0\0" + stream[at : at + 188] for at in range(0, len(stream), 188))
    assert decode(with_times, max_duration=30).samples.size
    (tmp_path / "camera.MTS").write_bytes(with_times)
    (tmp_path / "stream.ts").write_bytes(stream)
    (tmp_path / "module.mts").write_text("export const a = 1;\n" * 20)
    (tmp_path / "source.ts").write_text("GET(" + "a" * 300)
    (tmp_path / "texts.ts").write_text('<?xml version="1.0"?><TS></TS>')
    (tmp_path / "short.ts").write_text("G")
    (tmp_path / "empty.ts").write_bytes(b"")
    (tmp_path / "gone.ts").symlink_to("nowhere.ts")
    os.mkfifo(tmp_path / "pipe.ts")
    assert names(tmp_path) == ["camera.MTS", "stream.ts"]
    assert names(tmp_path / "source.ts") == ["source.ts"]


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
