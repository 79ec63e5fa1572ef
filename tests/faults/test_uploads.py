"""Uploads that are damaged, malformed or meant to harm, while good callers go on."""

from __future__ import annotations

import itertools
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.preprocess.decoding_limits import MAX_VALUES
from tests.api.server.test_server import hostile, resident_bytes
from tests.audio_samples import encode, speech
from tests.faults.callers import Callers
from tests.faults.conftest import Observe
from tests.faults.service import HealthWatch, Service, connect, running, texts
from tests.preprocess import bombs
from tests.preprocess.test_hostile import NO_AUDIO, SCRIPTS, originals

Sent = Callable[[httpx.Client], httpx.Response]
pytestmark = pytest.mark.slow
ATTACKERS = 8
REFUSALS = {400, 408, 413, 415, 422}
CLIP = encode("wav-s16", speech(seconds=0.5), 16_000)
MAX_FLAC_RATE = 655_350
FORM = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n'


def damaged(chance: random.Random) -> Sent:
    """A real file with bytes changed, cut out or put in, mostly where its headers are."""
    data = bytearray(chance.choice(list(originals().values())))
    for _ in range(chance.randint(1, 6)):
        edge = min(300, len(data))
        place = chance.choice([chance.randint(0, edge), chance.randint(len(data) - edge, len(data))])
        what = chance.choice([chance.randbytes(4), chance.randbytes(1), bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"])
        data[place : place + chance.choice([0, len(what), len(what), 40])] = what
    return raw(bytes(data))


def broken_form(chance: random.Random) -> Sent:
    """A form that is cut off, or not put together as it should be."""
    whole = FORM % b"file" + CLIP + b"\r\n--x--\r\n"
    body = chance.choice(
        [
            whole[: chance.randrange(len(whole) - 10)],
            whole.replace(b"--x", b"--y"),
            whole.replace(b"name=", b"nome="),
            whole.replace(b"\r\n\r\n", b"\r\n", 1),
            FORM % b"file" + CLIP + b"\r\n" + whole,
            FORM % b"granularity" + CLIP + b"\r\n--x--\r\n",
            b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\ntext\r\n--x--\r\n",
            b"--x\r\n" + b"X-Header: y\r\n" * 500 + b"\r\n--x--\r\n",
            b"".join(b"--x\r\nContent-Disposition: form-data; name=f%d\r\n\r\n1\r\n" % n for n in range(100)) + whole,
            b"",
            b"\r\n" * 1000,
            chance.randbytes(2000),
        ]
    )
    boundary = chance.choice(["; boundary=x"] * 9 + [""])
    return sent(content=body, headers={"Content-Type": f"multipart/form-data{boundary}"})


def bad_options(chance: random.Random) -> Sent:
    """A good file with options that are not."""
    options = chance.choice(
        [
            {"granularity": "word"},
            {"granularty": "frame"},
            {"start": "-1"},
            {"start": "nan"},
            {"start": "5", "end": "2"},
            {"end": "1e400"},
            {"labels": "joy"},
            {"labels": ""},
            {"channels": "7"},
            {"channels": "9" * 400},
            {"window": "0"},
            {"timeout": "inf"},
            {"embedding": "utterance\0"},
            {"x" * 200: "y" * 2000},
        ]
    )
    if chance.random() < 0.5:
        return sent(params=options, content=CLIP, headers={"Content-Type": "audio/wav"})
    return sent(data=options, files={"file": ("a", CLIP)})


def bad_type(chance: random.Random) -> Sent:
    """A body under a content type that is not taken."""
    kind = chance.choice(["text/plain", "application/json", "image/png", "", "multipart/mixed; boundary=x", "a" * 500])
    return sent(content=CLIP, headers={"Content-Type": kind})


def no_audio(chance: random.Random) -> Sent:
    """Something else than audio."""
    return raw(chance.choice(list(NO_AUDIO.values())))


def sent(**request: Any) -> Sent:
    return lambda client: client.post("/recognize", **request)


def raw(body: bytes) -> Sent:
    return sent(content=body, headers={"Content-Type": "audio/wav"})


def malformed(number: int) -> Iterator[Sent]:
    chance = random.Random(7)
    makers = [damaged] * 6 + [broken_form, broken_form, bad_options, bad_type, no_audio]
    return (chance.choice(makers)(chance) for _ in range(number))


def hostile_uploads() -> dict[str, bytes]:
    """What asks for more time or memory than it should, crashes decoders, or names files and addresses."""
    targets = {"path": "/etc/passwd", "host": "127.0.0.1:9", "port": 9}
    return {
        **{name: body for name, (body, _) in hostile().items()},
        **{f"script {name}": text.format(**targets).encode() for name, text in SCRIPTS.items()},
        "layout that crashes a decoder": bombs.mov_with_custom_layout(),
        "an hour of WebM": bombs.long_opus(3600, "webm"),
        "a WAV of 2^40 samples": bombs.wav_that_claims(2**40),
        "video": bombs.video_only(),
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("uploads")) as started:
        yield started


def attack(url: str, uploads: Iterable[Sent]) -> list[httpx.Response]:
    """Send all, several at a time."""
    with connect(url) as client, ThreadPoolExecutor(ATTACKERS) as pool:
        return list(pool.map(lambda upload: upload(client), uploads))


def improper(answers: Iterable[httpx.Response]) -> list[str]:
    """Answers that no bad upload may get; an answer as such is none, where the damage did no harm."""
    return [
        answer.text[:300]
        for answer in answers
        if answer.status_code != 200
        and not (answer.status_code in REFUSALS and answer.json()["status"] == answer.status_code)
    ]


def test_malformed_uploads(service: Service, observe: Observe) -> None:
    """1,000 damaged files, broken forms, wrong options and types, while 5 callers go on"""
    before, memory = service.saturate(), resident_bytes(service.process)
    counted = service.idle()
    with HealthWatch(service) as health, Callers(service.url) as callers:
        answers = attack(service.url, malformed(1000))
    callers.assert_content()
    assert improper(answers) == []
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() >= REFUSALS - {408, 413}
    assert service.idle().since(counted) == texts(statuses + callers.statuses)
    assert (health.live, health.ready) == ([200], [200])
    held = service.back_to(before)
    assert held.within(before), (before, held)
    grown = resident_bytes(service.process) - memory
    assert grown < 200 * 2**20
    observe(
        f"{listed(statuses)} (200 where the damage did no harm); {callers.statuses[200]} answers to the others, all "
        f"right; peak memory {grown / 2**20:+.0f} MiB; {held} before and after"
    )


def test_hostile_uploads(tmp_path: Path, observe: Observe) -> None:
    """200 bombs, scripts that name files and addresses, and files that crash decoders, while 5 callers go on"""
    uploads = hostile_uploads()
    # The largest file that is taken, once, since it is entitled to seconds of everybody's time.
    largest = encode("flac", np.zeros((1, MAX_VALUES), np.float32), MAX_FLAC_RATE)
    sent = [largest, *itertools.islice(itertools.cycle(uploads.values()), 199)]
    random.Random(7).shuffle(sent)
    with running(tmp_path) as service:
        before, memory = service.saturate(), resident_bytes(service.process)
        counted = service.idle()
        with HealthWatch(service) as health, Callers(service.url) as callers:
            answers = attack(service.url, map(raw, sent))
        callers.assert_content()
        assert improper(answers) == []
        statuses = Counter(answer.status_code for answer in answers)
        assert service.idle().since(counted) == texts(statuses + callers.statuses)
        assert (health.live, health.ready) == ([200], [200])
        assert health.slowest < 5
        held = service.back_to(before)
        assert held.within(before), (before, held)
        grown = resident_bytes(service.process) - memory
        # What two threads may be decoding, as decoded and as read by FFmpeg or mixed down, and what may wait.
        assert grown < 1000 * 2**20
    observe(
        f"{len(uploads)} kinds: {listed(statuses)}; {callers.statuses[200]} answers to the others, all right; peak "
        f"memory {grown / 2**20:+.0f} MiB; slowest probe {health.slowest:.2f} s; {held} before and after"
    )


def test_bytes_that_are_no_http(service: Service, observe: Observe) -> None:
    """Bytes that are not HTTP, while 5 callers go on"""
    chance = random.Random(7)
    post = b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
    messages = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a browser that expects TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        post + b"Content-Length: -5\r\n\r\n",
        post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        post + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        *(chance.randbytes(chance.randint(1, 5000)) for _ in range(20)),
    ]
    before = service.saturate()
    with HealthWatch(service) as health, Callers(service.url) as callers:
        for message in messages:
            with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
                connection.sendall(message)
                connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    while connection.recv(65_536):
                        pass
    callers.assert_content()
    assert (health.live, health.ready) == ([200], [200])
    service.idle()
    held = service.back_to(before)
    assert held.within(before), (before, held)
    observe(f"{len(messages)} connections, each closed; {callers.statuses[200]} answers to the others, all right")


def listed(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
