"""Good callers: they send real speech in several formats, again and again, and know what the answers must be."""

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
class Question:
    """A request whose answer is known."""

    body: bytes
    options: dict[str, str]
    answer: Any

    def put(self, client: httpx.Client) -> httpx.Response:
        return ask(client, self.body, **self.options)


@dataclass
class Callers:
    """Five of them, each with its own clip, format and options; they go on from entering the context to its end.

    Attributes:
        url: of the server; nobody disturbs it when the context is entered.
        tolerated: statuses beside 200 that they may get; refusals must say when to come back.
        statuses: what they have got, the answers before the fault included.
        codes: of the problems among it.
        complaints: what they should not have got.
    """

    url: str
    tolerated: Collection[int] = ()
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        questions = undisturbed(self.url)
        self.statuses[200] += len(questions)
        self._threads = [threading.Thread(target=self._go_on, args=(question,)) for question in questions]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let them get their last answers."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def get(self, answers: int) -> None:
        """Wait until they have got so many more answers."""
        enough = self.statuses[200] + answers
        until(lambda: self.statuses[200] >= enough)

    def _go_on(self, question: Question) -> None:
        with connect(self.url) as client:
            while True:
                try:
                    response = question.put(client)
                except httpx.TransportError as error:
                    self.complaints.append(repr(error))
                    return
                self.statuses[response.status_code] += 1
                if response.status_code == 200:
                    if answer_of(response) != question.answer:
                        self.complaints.append(f"another answer than before: {response.text[:200]}")
                else:
                    if response.status_code not in self.tolerated:
                        self.complaints.append(f"{response.status_code}: {response.text[:200]}")
                    elif response.status_code in (429, 503) and int(response.headers["retry-after"]) < 1:
                        self.complaints.append("they are not told when to come back")
                    self.codes[response.json()["code"]] += 1
                    self._over.wait(0.05)  # sooner than they were told: the server must stand that
                if self._over.is_set():
                    return

    def assert_content(self, at_least: int = 10) -> None:
        """They got what they should, and enough of it to be sure."""
        assert self.complaints == []
        assert self.statuses[200] >= at_least


def undisturbed(url: str) -> list[Question]:
    """Questions with their answers, asked one after another."""
    questions = []
    with connect(url) as client:
        for number, (name, rate, options) in zip(itertools.count(), _KINDS, strict=False):
            body = encode(name, speech(rate, channels=1 + number % 2, clip=number), rate)
            response = ask(client, body, **options)
            assert response.status_code == 200, response.text
            questions.append(Question(body, options, answer_of(response)))
    return questions


def ask(client: httpx.Client, body: bytes, **options: str) -> httpx.Response:
    """One request, as a form."""
    return client.post("/recognize", files={"file": ("clip", body)}, data=options)


def answer_of(response: httpx.Response) -> Any:
    """What the answer says, without what differs from request to request."""
    document = response.json()
    del document["id"]
    return document
