"""Requests at one level of load, and the values calculated from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from loadtests.common.load_generator import REFUSALS, TimedResponse


@dataclass(frozen=True, slots=True)
class LoadStep:
    """Results at one level of load.

    Attributes:
        name: the load, as shown.
        seconds: for how long requests were sent.
        answered, refused, failed: number of requests with status 200, with 429 or 503, and all others.
        audio: seconds of audio answered per second.
        p50, p99: quantiles of the latency of answered requests in seconds; 0 if there are none.
    """

    name: str
    seconds: float
    answered: int
    refused: int
    failed: int
    audio: float
    p50: float
    p99: float

    @classmethod
    def of(cls, name: str, responses: Sequence[TimedResponse], seconds: float) -> LoadStep:
        """Summarize requests that were sent for `seconds`; the last answers may have come later."""
        answered = [each for each in responses if each.status == 200]
        refused = sum(each.status in REFUSALS for each in responses)
        latencies = [each.latency for each in answered] or [0.0]
        cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
        return cls(
            name=name,
            seconds=seconds,
            answered=len(answered),
            refused=refused,
            failed=len(responses) - len(answered) - refused,
            audio=sum(each.audio for each in answered) / seconds,
            p50=cuts[49],
            p99=cuts[98],
        )

    @property
    def requests(self) -> float:
        """Answered requests per second."""
        return self.answered / self.seconds

    @property
    def refused_share(self) -> float:
        """Share of the requests that were refused."""
        return self.refused / max(1, self.answered + self.refused + self.failed)
