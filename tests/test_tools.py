from __future__ import annotations

import pytest

from tests.tools import needed


def test_a_tool_that_is_there() -> None:
    assert needed("sh").endswith("/sh")


@pytest.mark.parametrize(("value", "outcome"), [("", pytest.skip.Exception), ("require", pytest.fail.Exception)])
def test_a_tool_that_is_missing(monkeypatch: pytest.MonkeyPatch, value: str, outcome: type[BaseException]) -> None:
    monkeypatch.setenv("CI_TOOLS", value)
    with pytest.raises(outcome, match="no-such-tool is not installed"):
        needed("no-such-tool")
