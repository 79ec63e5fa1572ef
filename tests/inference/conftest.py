from __future__ import annotations

import pytest

from service.inference import engine, supervisor


@pytest.fixture(autouse=True)
def _quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restart at once, so that tests do not wait."""
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(engine, "STOP_GRACE", 0.05)
