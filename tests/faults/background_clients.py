"""Clients that repeatedly send speech in several formats and check that the answers stay the same."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from tests.audio_samples import encode, speech
from tests.faults.service import connect, until

_KINDS: tuple[tuple[str, int, dict[str, str]], ...] = (
    ("wav-s16", 16_000, {}),
    ("flac", 44_100, {"granularity": "frame", "window": "0.5"}),
    ("mp3", 16_000, {"embedding": "utterance", "encoding": "base64"}),
    ("webm", 48_000, {"labels": "angry,happy,sad"}),
    ("ogg-vorbis", 22_050, {"channels": "split", "label_language": "zh"}),
)


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request with its expected answer."""

    body: bytes
    options: dict[str, str]
    answer: Any

    def send(self, client: httpx.Client) -> httpx.Response:
        return ask(client, self.body, **self.options)


@dataclass
class BackgroundClients:
    """Five clients, each with its own clip, format and options; they send requests until the end of the context.

    Attributes:
        url: of the server, which must work normally when the context is entered.
        tolerated: accepted statuses other than 200; refusals must have `Retry-After`.
        statuses: counts of all statuses received, including those before the fault.
        codes: counts of the problem codes received.
        unexpected: descriptions of unexpected answers.
    """

    url: str
    tolerated: Collection[int] = ()
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        requests = known_requests(self.url)
        self.statuses[200] += len(requests)
        self._threads = [threading.Thread(target=self._send_all, args=(request,)) for request in requests]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop after the requests in progress."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, answers: int) -> None:
        """Wait for this many more answers with status 200."""
        enough = self.statuses[200] + answers
        until(lambda: self.statuses[200] >= enough)

    def _send_all(self, request: KnownRequest) -> None:
        with connect(self.url) as client:
            while True:
                try:
                    response = request.send(client)
                except httpx.TransportError as error:
                    self.unexpected.append(repr(error))
                    return
                self.statuses[response.status_code] += 1
                if response.status_code == 200:
                    if answer_of(response) != request.answer:
                        self.unexpected.append(f"answer differs: {response.text[:200]}")
                else:
                    if response.status_code not in self.tolerated:
                        self.unexpected.append(f"{response.status_code}: {response.text[:200]}")
                    elif response.status_code in (429, 503) and int(response.headers["retry-after"]) < 1:
                        self.unexpected.append("Retry-After is missing or 0")
                    self.codes[response.json()["code"]] += 1
                    self._stop.wait(0.05)  # less than Retry-After: the server must tolerate that
                if self._stop.is_set():
                    return

    def assert_undisturbed(self, at_least: int = 10) -> None:
        """Check that all answers were as expected, and that there were enough of them."""
        assert self.unexpected == []
        assert self.statuses[200] >= at_least


def known_requests(url: str) -> list[KnownRequest]:
    """Five requests with their answers from a server without faults, sent one after another."""
    requests = []
    with connect(url) as client:
        for number, (name, rate, options) in zip(itertools.count(), _KINDS, strict=False):
            body = encode(name, speech(rate, channels=1 + number % 2, clip=number), rate)
            response = ask(client, body, **options)
            assert response.status_code == 200, response.text
            requests.append(KnownRequest(body, options, answer_of(response)))
    return requests


def ask(client: httpx.Client, body: bytes, **options: str) -> httpx.Response:
    """Send one request as a form."""
    return client.post("/recognize", files={"file": ("clip", body)}, data=options)


def answer_of(response: httpx.Response) -> Any:
    """The answer without the request id."""
    document = response.json()
    del document["id"]
    return document
