from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A machine with other work takes longer over examples than any limit that would tell something.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Before torch is imported: the models of the tests are so small that its threads only wait for one another, which
# takes minutes on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SER_"):
            monkeypatch.delenv(name)
