from __future__ import annotations

from collections.abc import Callable

import pytest

Observe = Callable[[str], None]


@pytest.fixture
def observe(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Observe:
    """Notes what was seen; a test that asks for this has a row in the table of `tests.faults.report`.

    The row's name is the test's docstring. It is noted at once, so that a test that fails has one, too.
    """
    record_property("fault", request.function.__doc__.strip())

    def note(text: str) -> None:
        record_property("observed", text)

    return note
