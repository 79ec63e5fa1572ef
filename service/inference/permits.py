"""Permits that callers hold, of which none may take so many that nothing is left for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Permits:
    """A number of permits, and how many each caller holds.

    A caller may hold a share of its own permits and the free ones together: that share of all of them if it is alone,
    and less if others hold some. So permits stay free for the next caller also if several take all they may: with a
    share of one half, each leaves half of what it finds.

    Args:
        limit: how many there are.
        share: between 0 and 1; at 1, a caller may hold all of them.

    Attributes:
        limit: as above.
        taken: how many are held; may be read from any thread.
    """

    def __init__(self, limit: int, share: float) -> None:
        self.limit = limit
        self._share = share
        self._held: Counter[str] = Counter()
        self.taken = 0

    @property
    def all_taken(self) -> bool:
        """Whether none is free."""
        return self.taken >= self.limit

    def share_taken(self, caller: str) -> bool:
        """Whether `caller` holds as many as it may at present."""
        held = self._held[caller]
        return held >= self._share * (held + self.limit - self.taken)

    @contextmanager
    def hold(self, caller: str) -> Iterator[None]:
        """Hold one permit; the caller has checked that it may."""
        self.taken += 1
        self._held[caller] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
