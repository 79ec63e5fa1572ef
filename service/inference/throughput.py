"""How fast the worker gets through audio, for telling clients when to come back, or how long they will wait."""

from __future__ import annotations

_MEMORY = 0.9
_SHORTEST, _LONGEST = 1.0, 60.0


class Throughput:
    """Audio seconds per second over the last ten runs or so, long runs weighing more than short ones."""

    def __init__(self) -> None:
        self._audio = 0.0
        self._wall = 0.0

    def observe(self, audio: float, wall: float) -> None:
        """Count a run that took `wall` seconds for `audio` seconds of audio."""
        self._audio = _MEMORY * self._audio + audio
        self._wall = _MEMORY * self._wall + wall

    def expected(self, queued: float) -> float | None:
        """Seconds until `queued` seconds of audio will be done; None before the first run."""
        return queued * self._wall / self._audio if self._audio else None

    def retry_after(self, queued: float) -> float:
        """As `expected`, but between 1 and 60; 1 before the first run."""
        return min(max(self.expected(queued) or 0.0, _SHORTEST), _LONGEST)
