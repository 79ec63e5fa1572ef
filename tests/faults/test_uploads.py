"""Damaged, malformed and hostile uploads, while other clients send valid requests."""

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
from tests.faults.background_clients import BackgroundClients
from tests.faults.conftest import Observe
from tests.faults.service import HealthWatch, RunningService, by_status_text, connect, running
from tests.preprocess import bombs
from tests.preprocess.test_hostile import NO_AUDIO, SCRIPTS, originals

Sent = Callable[[httpx.Client], httpx.Response]
pytestmark = pytest.mark.slow
SENDERS = 8
REFUSALS = {400, 408, 413, 415, 422}
CLIP = encode("wav-s16", speech(seconds=0.5), 16_000)
MAX_FLAC_RATE = 655_350
FORM = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n'


def damaged(chance: random.Random) -> Sent:
    """A valid file with bytes changed, removed or inserted, mostly near its headers."""
    data = bytearray(chance.choice(list(originals().values())))
    for _ in range(chance.randint(1, 6)):
        edge = min(300, len(data))
        place = chance.choice([chance.randint(0, edge), chance.randint(len(data) - edge, len(data))])
        what = chance.choice([chance.randbytes(4), chance.randbytes(1), bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"])
        data[place : place + chance.choice([0, len(what), len(what), 40])] = what
    return raw(bytes(data))


def broken_form(chance: random.Random) -> Sent:
    """A truncated or malformed form."""
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
    """A valid file with an invalid option."""
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
    """A valid file with an unsupported content type."""
    kind = chance.choice(["text/plain", "application/json", "image/png", "", "multipart/mixed; boundary=x", "a" * 500])
    return sent(content=CLIP, headers={"Content-Type": kind})


def no_audio(chance: random.Random) -> Sent:
    """A file that is not audio."""
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
    """Files that need excessive time or memory, crash decoders, or name files and addresses."""
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
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running(tmp_path_factory.mktemp("uploads")) as started:
        yield started


def send_parallel(url: str, uploads: Iterable[Sent]) -> list[httpx.Response]:
    """Send all uploads, several at a time."""
    with connect(url) as client, ThreadPoolExecutor(SENDERS) as pool:
        return list(pool.map(lambda upload: upload(client), uploads))


def unexpected_answers(answers: Iterable[httpx.Response]) -> list[str]:
    """The answers to damaged uploads that are neither 200 (the damage was harmless) nor a proper refusal."""
    return [
        answer.text[:300]
        for answer in answers
        if answer.status_code != 200
        and not (answer.status_code in REFUSALS and answer.json()["status"] == answer.status_code)
    ]


def test_malformed_uploads(service: RunningService, observe: Observe) -> None:
    """1,000 damaged files, malformed forms, invalid options and content types, with 5 other clients active"""
    before, memory = service.saturate(), resident_bytes(service.process)
    counted = service.idle()
    with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
        answers = send_parallel(service.url, malformed(1000))
    clients.assert_undisturbed()
    assert unexpected_answers(answers) == []
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() >= REFUSALS - {408, 413}
    assert service.idle().since(counted) == by_status_text(statuses + clients.statuses)
    assert (health.live, health.ready) == ([200], [200])
    resources = service.settled_resources(before)
    assert resources.within(before), (before, resources)
    grown = resident_bytes(service.process) - memory
    assert grown < 200 * 2**20
    observe(
        f"{listed(statuses)} (200 where the damage was harmless); {clients.statuses[200]} correct answers to the "
        f"other clients; peak memory {grown / 2**20:+.0f} MiB; {resources} before and after"
    )


def test_hostile_uploads(tmp_path: Path, observe: Observe) -> None:
    """200 decompression bombs, scripts that name files, and files that crash decoders, with 5 other clients active"""
    uploads = hostile_uploads()
    # The largest accepted file, only once, since it occupies the server for seconds.
    largest = encode("flac", np.zeros((1, MAX_VALUES), np.float32), MAX_FLAC_RATE)
    sent = [largest, *itertools.islice(itertools.cycle(uploads.values()), 199)]
    random.Random(7).shuffle(sent)
    with running(tmp_path) as service:
        before, memory = service.saturate(), resident_bytes(service.process)
        counted = service.idle()
        with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
            answers = send_parallel(service.url, map(raw, sent))
        clients.assert_undisturbed()
        assert unexpected_answers(answers) == []
        statuses = Counter(answer.status_code for answer in answers)
        assert service.idle().since(counted) == by_status_text(statuses + clients.statuses)
        assert (health.live, health.ready) == ([200], [200])
        assert health.slowest < 5
        resources = service.settled_resources(before)
        assert resources.within(before), (before, resources)
        grown = resident_bytes(service.process) - memory
        # The files that two threads decode, each also as read by FFmpeg or mixed down, and the clips in the queue.
        assert grown < 1000 * 2**20
    observe(
        f"{len(uploads)} kinds: {listed(statuses)}; {clients.statuses[200]} correct answers to the other clients; peak "
        f"memory {grown / 2**20:+.0f} MiB; slowest probe {health.slowest:.2f} s; {resources} before and after"
    )


def test_bytes_that_are_not_http(service: RunningService, observe: Observe) -> None:
    """Bytes that are not HTTP, with 5 other clients active"""
    chance = random.Random(7)
    post = b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n"
    messages = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # the beginning of a TLS connection
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n",
        post + b"Content-Length: -5\r\n\r\n",
        post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        post + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        *(chance.randbytes(chance.randint(1, 5000)) for _ in range(20)),
    ]
    before = service.saturate()
    with HealthWatch(service) as health, BackgroundClients(service.url) as clients:
        for message in messages:
            with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
                connection.sendall(message)
                connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    while connection.recv(65_536):
                        pass
    clients.assert_undisturbed()
    assert (health.live, health.ready) == ([200], [200])
    service.idle()
    resources = service.settled_resources(before)
    assert resources.within(before), (before, resources)
    observe(f"{len(messages)} connections, each closed; {clients.statuses[200]} correct answers to the other clients")


def listed(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
