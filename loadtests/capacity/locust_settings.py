"""Settings of the locust test: how many callers there are at each moment, and when the test has failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

Shape = Literal["steady", "step", "spike", "soak"]


@dataclass(frozen=True, slots=True)
class LocustSettings:
    """Settings from the environment: the load, and the limits that decide the exit status.

    Attributes:
        shape: how the number of callers changes (LOAD_SHAPE).
        users: the largest number of callers (LOAD_USERS).
        seconds: duration of the test (LOAD_SECONDS).
        p99: highest 99th percentile of the latency of accepted requests, in milliseconds (LOAD_P99_MS).
        error_ratio: highest share of failed requests; refusals with 429 or 503 are not failures (LOAD_ERROR_RATIO).
        refused_ratio: highest share of refused requests (LOAD_REFUSED_RATIO).
    """

    shape: Shape
    users: int
    seconds: float
    p99: float
    error_ratio: float
    refused_ratio: float

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables; those not set have defaults.

        Raises:
            ValueError: if a value is invalid.
        """
        shape = environment.get("LOAD_SHAPE", "steady")
        if shape not in get_args(Shape):
            raise ValueError(f"LOAD_SHAPE is {shape!r}; it must be one of {', '.join(get_args(Shape))}")
        return cls(
            shape=cast(Shape, shape),
            users=int(environment.get("LOAD_USERS", "10")),
            seconds=float(environment.get("LOAD_SECONDS", "60")),
            p99=float(environment.get("LOAD_P99_MS", "10000")),
            error_ratio=float(environment.get("LOAD_ERROR_RATIO", "0")),
            refused_ratio=float(environment.get("LOAD_REFUSED_RATIO", "1")),
        )

    def users_at(self, second: float) -> int | None:
        """Number of callers at this second, None when the test is over.

        `steady`: all callers from the beginning. `step`: a quarter more in each quarter of the time. `spike`: a fifth
        of the callers, but all of them in the middle fifth of the time. `soak`: four fifths of the callers, which are
        added one after another in the first twentieth of the time.
        """
        if second >= self.seconds:
            return None
        progress = second / self.seconds
        share = {
            "steady": 1.0,
            "step": (int(4 * progress) + 1) / 4,
            "spike": 1.0 if 0.4 <= progress < 0.6 else 0.2,
            "soak": 0.8 * min(1.0, 20 * progress),
        }[self.shape]
        return max(1, round(share * self.users))

    def failures(self, accepted: int, refused: int, failed: int, p99: float) -> list[str]:
        """Reasons why the test has failed; empty if it has passed.

        Args:
            accepted: number of requests with status 200.
            refused: number of requests with status 429 or 503.
            failed: number of all other requests.
            p99: 99th percentile of the latency of accepted requests, in milliseconds.
        """
        total = accepted + refused + failed
        if not accepted:
            return [f"none of {total} requests was accepted"]
        reasons = []
        if p99 > self.p99:
            reasons.append(f"P99 is {p99:.0f} ms; at most {self.p99:.0f} are allowed")
        if failed > self.error_ratio * total:
            reasons.append(f"{failed} of {total} requests failed; a share of {self.error_ratio:g} is allowed")
        if refused > self.refused_ratio * total:
            reasons.append(f"{refused} of {total} requests were refused; a share of {self.refused_ratio:g} is allowed")
        return reasons
