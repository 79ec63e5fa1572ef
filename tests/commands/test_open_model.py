from __future__ import annotations

import weakref

import pytest

from service.commands.open_model import find_model, start_opening
from service.errors import SettingsInvalid
from service.settings.settings import Settings


def test_the_model_is_opened_once_in_advance_and_then_at_every_call() -> None:
    settings = Settings(device="cpu")
    opened = start_opening(find_model(settings), settings, few=True)
    first, second = opened(), opened()
    assert first is not second
    assert first.info == second.info
    # A backend that breaks must leave the memory before the next one is opened.
    left = weakref.ref(first)
    del first
    assert left() is None


def test_an_error_is_raised_where_the_model_is_needed() -> None:
    settings = Settings(device="cpu", dtype="fp16")
    opened = start_opening(find_model(settings), settings)
    for _ in range(2):
        with pytest.raises(SettingsInvalid, match="fp16"):
            opened()
