"""The least speed at which a client must send."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Pace:
    """Whether input arrives at a least rate, on average over the time for which the service waits for it.

    A limit on pauses alone lets a client hold a permit by sending a byte now and then.

    Attributes:
        rate: units per second that must arrive; 0 for no limit.
        grace: seconds by which the client may be late.
        received: units that have arrived.
        waited: seconds for which the service has waited for the client.
    """

    rate: float
    grace: float
    received: float = 0.0
    waited: float = 0.0

    @property
    def left(self) -> float:
        """Seconds after which the client is too slow if nothing more arrives; negative if it is too slow already."""
        return self.grace + self.received / self.rate - self.waited if self.rate else inf
