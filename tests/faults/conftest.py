from __future__ import annotations

from collections.abc import Callable

import pytest

Observe = Callable[[str], None]


@pytest.fixture
def observe(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Observe:
    """Records an observation; a test with this fixture has a row in the table of `tests.faults.report`.

    The row's name is the test's docstring, which is recorded at the start, so that failed tests have a row too.
    """
    record_property("fault", request.function.__doc__.strip())

    def note(text: str) -> None:
        record_property("observed", text)

    return note
