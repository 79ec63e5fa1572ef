"""Where each request is that has not been answered yet, for whoever shows it to a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.api.schemas import RequestState
from service.inference.recognizer import Recognizer
from service.recognition.answers import DIGITS
from service.results import Clip


class RequestProgress:
    """One request between its permit and its answer.

    Attributes:
        received: whether its body is there.
        segments: how many were answered, None with any other granularity.
        until: seconds of the file at which the last of them ends.
    """

    def __init__(self) -> None:
        self.received = False
        self.segments: int | None = None
        self.until = 0.0
        self._answered = False
        self._clips: dict[int, Clip] = {}

    @contextmanager
    def at_the_recognizer(self, clip: Clip) -> Iterator[None]:
        """Note that the recognizer has `clip`, waiting or running, while the context is open."""
        self._clips[id(clip)] = clip
        try:
            yield
        finally:
            del self._clips[id(clip)]
            self._answered = True

    def state(self, recognizer: Recognizer) -> RequestState:
        """What is done for the request now; with several clips it is queued as long as all that are due wait."""
        state = self._state(recognizer)
        if self.segments is not None:
            state["segments"] = {"answered": self.segments, "until": round(self.until, DIGITS)}
        return state

    def _state(self, recognizer: Recognizer) -> RequestState:
        if not self.received:
            return {"state": "receiving"}
        if not self._clips:
            return {"state": "running" if self._answered else "decoding"}
        waiting = [ahead for clip in self._clips.values() if (ahead := recognizer.ahead_of(clip)) is not None]
        if len(waiting) < len(self._clips):
            return {"state": "running"}
        first = min(waiting, key=lambda ahead: ahead.clips)
        return {
            "state": "queued",
            "ahead": {
                "clips": first.clips,
                "audio_seconds": round(first.seconds, DIGITS),
                "wait": None if first.wait is None else round(first.wait, DIGITS),
            },
        }


class ProgressBoard:
    """The requests that are worked on, by their ids; as many as there are permits."""

    def __init__(self) -> None:
        self._requests: dict[str, RequestProgress] = {}

    @contextmanager
    def follow(self, request_id: str) -> Iterator[RequestProgress]:
        """Show a request while the context is open; of several with one id, the one that came last."""
        progress = self._requests[request_id] = RequestProgress()
        try:
            yield progress
        finally:
            if self._requests.get(request_id) is progress:
                del self._requests[request_id]

    def state(self, request_id: str, recognizer: Recognizer) -> RequestState:
        """The state of a request, `unknown` where there is none of this id."""
        progress = self._requests.get(request_id)
        return {"state": "unknown"} if progress is None else progress.state(recognizer)
