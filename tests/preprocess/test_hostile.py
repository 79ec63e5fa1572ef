"""Uploads that are not audio, truncated, or malicious."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.errors import AudioError, AudioTooLong, AudioTruncated, NotDecodable
from service.preprocess.byte_source import ByteSource
from service.preprocess.decode import decode
from service.preprocess.decoding_limits import DecodingLimits
from service.preprocess.ffmpeg import decoder
from service.preprocess.reader import open_reader
from tests.audio_samples import AMR, AMR_WB, CLIPS, FORMATS, encode, speech
from tests.preprocess import bombs

ROOT = Path(__file__).parents[2]


def zipped() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(CLIPS[0], "clip.flac")
    return file.getvalue()


NO_AUDIO = {
    "text": b"This is not audio, it is only a text about it.\n" * 50,
    "one byte": b"R",
    "html": b"<!doctype html><html><body><audio src='a.mp3'></audio></body></html>" * 20,
    "json": b'{"audio": [0.0, 0.1]}' * 100,
    "zip": zipped(),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89" + bytes(200),
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + bytes(range(256)) * 8,
    "elf": Path(sys.executable).resolve().read_bytes()[:200_000],
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "noise": np.random.default_rng(0).bytes(100_000),
    "headerless samples": (speech()[0] * 32767).astype("<i2").tobytes(),
    "wav header": encode("wav-s16", speech(), 16_000)[:30],
    "video": bombs.video_only(),
}


@pytest.mark.parametrize("name", NO_AUDIO)
def test_no_audio(name: str) -> None:
    with pytest.raises(NotDecodable) as caught:
        decode(NO_AUDIO[name], max_duration=10)
    assert "[Errno" not in caught.value.detail
    assert "Invalid data" not in caught.value.detail


def test_video_without_sound_says_so() -> None:
    with pytest.raises(NotDecodable, match="no audio stream"):
        decode(bombs.video_only(), max_duration=10)


INDEX_LAST = ("m4a", "m4a-alac", "mp4", "mov", "3gp", "caf-alac")
"""Formats that end with an index, without which the audio cannot be found."""


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"gsm", "aac", "mpegts"}))
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_files_that_end_early(name: str, share: float) -> None:
    rate = 8_000 if FORMATS[name].rates == (8_000,) else 16_000
    data = encode(name, np.tile(speech(rate), 4), rate)
    cut = data[: int(len(data) * share)]
    if name in INDEX_LAST:
        with pytest.raises(AudioTruncated, match=r"index|nothing"):
            decode(cut, max_duration=10)
        return
    whole, part = decode(data, max_duration=10), decode(cut, max_duration=10)
    assert not whole.truncated
    assert part.truncated
    assert part.duration == pytest.approx(share * whole.duration, abs=1)  # a page of Ogg lasts up to a second
    if name in ("flac", "wav-s16", "aiff"):
        assert np.array_equal(part.samples, whole.samples[:, : part.samples.shape[1]])


@pytest.mark.parametrize("name", ["gsm", "amr", "amr-wb", "aac", "mpegts"])
def test_truncation_is_not_detected_in_formats_without_a_declared_length(name: str) -> None:
    rate = 8_000 if name == "gsm" else 16_000
    files = {"amr": AMR, "amr-wb": AMR_WB}
    data = files[name].read_bytes() if name in files else encode(name, speech(rate), rate)
    whole = decode(data, max_duration=10).duration
    # The bit rate of AAC varies, and its packets are of 64 ms.
    for share in (0.5, 0.9):  # also within a frame
        cut = decode(data[: int(len(data) * share)], max_duration=10)
        assert cut.duration == pytest.approx(whole * share, abs=0.2)
        assert not cut.truncated


@pytest.mark.parametrize("name", ["flac", "ogg-vorbis", "m4a"])
def test_damage_in_the_middle(name: str) -> None:
    data = bytearray(encode(name, np.tile(speech(), 4), 16_000))
    third = len(data) // 3
    data[third : 2 * third] = np.random.default_rng(0).bytes(third)
    with pytest.raises((AudioTruncated, NotDecodable)):
        decode(data, max_duration=10)


# One process for all files, so that its peak memory is that of the worst.
_MEASURE = """
import resource, sys
from pathlib import Path
from service.errors import AudioError
from service.preprocess.ffmpeg import sandbox
from service.preprocess.decode import decode
from service.preprocess.reader import open_reader
import numpy, soxr
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        with Path(path).open("rb") as file:
            if sys.argv[1] == "whole":
                decode(file, max_duration=30)
            else:
                with open_reader(file, max_duration=30) as reader:
                    for block in reader.blocks():
                        pass
        code = "decoded"
    except AudioError as error:
        code = error.code
    print(Path(path).name, code)
sandbox.close()
print("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
print("child", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("mode", ["whole", "blocks"])
def test_bombs(mode: str, tmp_path: Path) -> None:
    """Neither time nor memory depend on what the headers claim."""
    files = {
        "flac": bombs.long_flac(6 * 3600),
        "opus": bombs.long_opus(3600, "ogg"),
        "webm": bombs.long_opus(3600, "webm"),
        "wav": bombs.wav_that_claims(1 << 36),
        "flac-claim": bombs.flac_that_claims((1 << 36) - 1),
        "mp4": bombs.mp4_with_index(1 << 27),
    }
    assert len(files["flac"]) < 80_000
    assert len(files["opus"]) < 1_000_000
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", _MEASURE, mode, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    answers = dict(line.split() for line in done.stdout.splitlines())
    assert answers["flac"] == answers["opus"] == answers["webm"] == "audio_too_long"
    # No declared length is believed against the end of the file.
    assert answers["wav"] == answers["flac-claim"] == "decoded"
    assert answers["mp4"] in ("audio_empty", "audio_not_decodable")
    assert int(answers["grown"]) < 100  # MiB; 30 s at 48 kHz are 6
    assert int(answers["child"]) < 400  # the limit of a child; the index would take 4,800


def test_bombs_at_their_true_length() -> None:
    """The bombs are valid audio; only their length is excessive."""
    assert decode(bombs.long_flac(10), max_duration=30).duration == 10
    assert decode(bombs.long_opus(10, "ogg"), max_duration=30).duration == pytest.approx(10, abs=0.1)
    with pytest.raises(AudioTooLong):
        decode(bombs.long_flac(31), max_duration=30)


class Watch:
    """Detects by inotify that a file was opened."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None)
        self._queue = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._queue, os.fsencode(path), 0x20) >= 0  # IN_OPEN

    def opened(self) -> bool:
        try:
            return bool(os.read(self._queue, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._queue)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[tuple[Path, Watch]]:
    """A file that would decode if it were opened, and a watch for that."""
    path = tmp_path / "canary.wav"
    path.write_bytes(encode("wav-s16", speech(), 16_000))
    watch = Watch(path)
    yield path, watch
    watch.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens for connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_without_lists_ffmpeg_opens_what_a_script_names(
    canary: tuple[Path, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch works, and FFmpeg would open the file without the lists."""
    path, watch = canary
    monkeypatch.chdir(path.parent)
    assert not watch.opened()
    with av.open(BytesIO(SCRIPTS["ffconcat relative"].encode())) as container:
        assert container.streams.audio
    assert watch.opened()


def decode_confined(data: bytes) -> None:
    decode(data, max_duration=10)


def decode_unconfined(data: bytes) -> None:
    """Decode with FFmpeg in this process, which is not confined."""
    list(decoder.decode_blocks(ByteSource(data), DecodingLimits(10, whole=True)))


SCRIPTS = {
    "ffconcat relative": "ffconcat version 1.0\nfile 'canary.wav'\n",
    "ffconcat": "ffconcat version 1.0\nfile '{path}'\nfile 'file:{path}'\nfile 'http://{host}/a.wav'\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{path}\n#EXTINF:2,\nhttp://{host}/a.ts\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n{path}\nhttp://{host}/a.mp3\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
    "rtsp": "RTSPtextRTSP://{host}/a\nrtsp://{host}/a\n",
    "mpd": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' profiles='dash:profile'>"
    "<Period><AdaptationSet mimeType='audio/mp4'><Representation id='1' bandwidth='1'><BaseURL>file://{path}</BaseURL>"
    "</Representation></AdaptationSet></Period></MPD>",
    "asx": "<asx version='3.0'><entry><ref href='http://{host}/a.wma'/></entry></asx>",
    "smil": "<smil><body><audio src='file://{path}'/></body></smil>",
    "pls": "[playlist]\nFile1={path}\nFile2=http://{host}/a.mp3\nNumberOfEntries=2\n",
    "imf": "<?xml version='1.0'?><CompositionPlaylist xmlns='http://www.smpte-ra.org/schemas/2067-3/2016'/>{path}",
    "path": "{path}",
    "url": "http://{host}/a.wav",
    "subfile": "subfile,,start,0,end,0,,:{path}",
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("confined", [True, False])
def test_scripts_open_nothing(
    name: str,
    confined: bool,
    canary: tuple[Path, Watch],
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both FFmpeg's lists and the confined process prevent it."""
    path, watch = canary
    monkeypatch.chdir(path.parent)
    port = listener.getsockname()[1]
    script = SCRIPTS[name].format(path=path, port=port, host=f"127.0.0.1:{port}").encode()
    run = decode_confined if confined else decode_unconfined
    with pytest.raises(NotDecodable):
        run(script)
    assert not watch.opened()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_mov_with_samples_in_another_file(canary: tuple[Path, Watch]) -> None:
    """A data reference may name a file; only a default of FFmpeg prevents that, so it is tested."""
    path, watch = canary
    data = bytearray(encode("mov", speech(), 16_000))
    box = data.index(b"url \0\0\0\1")
    # An alias record that ends with the path (type 2), instead of "in this file".
    name = os.fsencode(path)
    record = bytes(150) + b"\0\2" + len(name).to_bytes(2, "big") + name + b"\xff\xff\0\0"
    alias = b"alis" + bytes(4) + record
    changed = bytearray(data[: box - 4] + (len(alias) + 4).to_bytes(4, "big") + alias + data[box + 8 :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = data.index(parent) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(alias) - 8
        changed[place : place + 4] = size.to_bytes(4, "big")
    with pytest.raises(AudioError):
        decode_unconfined(bytes(changed))
    assert not watch.opened()


_QUIET = """
import sys
from pathlib import Path
from service.errors import AudioError
from service.preprocess.decode import decode
for path in sys.argv[1:]:
    try:
        decode(Path(path).read_bytes(), max_duration=30)
    except AudioError:
        pass
"""


def test_libraries_print_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in FORMATS:
        rate = 8_000 if FORMATS[name].rates == (8_000,) else 16_000
        data = bytearray(encode(name, speech(rate), rate))
        for place in random.integers(100, len(data), 40):
            data[place] = random.integers(256)
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", _QUIET, *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@cache
def originals() -> dict[str, bytes]:
    """Half a second in every format."""
    rates = {name: 8_000 if form.rates == (8_000,) else 16_000 for name, form in FORMATS.items()}
    files = {name: encode(name, speech(rate, seconds=0.5), rate) for name, rate in rates.items()}
    return files | {"amr": AMR.read_bytes()[:1000], "amr-wb": AMR_WB.read_bytes()[:1000]}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real file with bytes changed, removed or inserted, mostly in the headers: its first and last 300 bytes."""
    data = bytearray(originals()[draw(st.sampled_from(sorted(originals())))])
    for _ in range(draw(st.integers(1, 6))):
        edge = min(300, len(data))
        place = draw(
            st.one_of(st.integers(0, edge), st.integers(len(data) - edge, len(data)), st.integers(0, len(data)))
        )
        what = draw(
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"]),
            )
        )
        cut = draw(st.sampled_from([0, len(what), len(what), len(what), 40]))
        data[place : place + cut] = what
    return bytes(data)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(damaged(), damaged(), damaged(), st.binary(max_size=300)))
@example(b"\0")
def test_any_bytes_give_audio_or_an_audio_error(data: bytes) -> None:
    """The result is the same for the whole file and for blocks."""
    whole = blocks = None
    try:
        waveform = decode(data, max_duration=2)
        assert waveform.samples.dtype == np.float32
        assert waveform.samples.shape[1] > 0
        assert waveform.duration <= 2
    except AudioError as error:
        whole = (error.code, error.detail)
    try:
        with open_reader(data, max_duration=2) as reader:
            samples = np.concatenate(list(reader.blocks()), axis=1)
    except AudioError as error:
        blocks = (error.code, error.detail)
    assert blocks == whole
    assert whole or np.array_equal(samples, waveform.samples, equal_nan=True)


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_any_damage_at_length(data: bytes) -> None:
    test_any_bytes_give_audio_or_an_audio_error.hypothesis.inner_test(data)  # type: ignore[attr-defined]
