"""A measurement under one kind of load, and what is calculated from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from loadtests.arrivals import REFUSALS, Outcome


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one level of load.

    Attributes:
        name: the load, for readers.
        seconds: for how long it was sent.
        answered, refused, failed: requests that got 200, 429 or 503, and anything else.
        audio: seconds of audio answered per second.
        p50, p99: seconds from when a request was due to its answer, of those answered; 0 where none was.
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
    def of(cls, name: str, outcomes: Sequence[Outcome], seconds: float) -> Step:
        """Sum up requests that were sent for `seconds`, or for longer where the last answers took longer."""
        answered = [each for each in outcomes if each.status == 200]
        refused = sum(each.status in REFUSALS for each in outcomes)
        latencies = [each.latency for each in answered] or [0.0]
        cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
        return cls(
            name=name,
            seconds=seconds,
            answered=len(answered),
            refused=refused,
            failed=len(outcomes) - len(answered) - refused,
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
        """Share of the requests that was refused."""
        return self.refused / max(1, self.answered + self.refused + self.failed)


def statuses(outcomes: Sequence[Outcome]) -> Counter[int]:
    """Requests by status."""
    return Counter(each.status for each in outcomes)
