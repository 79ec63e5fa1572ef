from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from service.model.typed_json import WrongTypeError, from_json


@dataclass
class Inner:
    ratio: float


@dataclass
class Outer:
    name: str
    sizes: tuple[int, ...]
    inner: dict[str, Inner]
    ready: bool = False
    extra: Inner | None = None


GOOD: dict[str, Any] = {"name": "a", "sizes": [1, 2], "inner": {"x": {"ratio": 0.5}}}


def test_values_of_the_right_types_are_taken() -> None:
    assert from_json(Outer, GOOD) == Outer("a", (1, 2), {"x": Inner(0.5)})
    full = from_json(Outer, {**GOOD, "sizes": [], "inner": {}, "ready": True, "extra": {"ratio": 1}})
    assert full == Outer("a", (), {}, True, Inner(1.0))
    assert isinstance(full.extra.ratio if full.extra else None, float)
    assert from_json(Outer, {**GOOD, "extra": None}).extra is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 1}, "name must be a text"),
        ({"name": None}, "name must be a text"),
        ({"sizes": 1}, "sizes must be a list"),
        ({"sizes": [1, "2"]}, r"sizes\.1 must be an integer"),
        ({"sizes": [True]}, r"sizes\.0 must be an integer"),
        ({"sizes": [1.0]}, r"sizes\.0 must be an integer"),
        ({"inner": []}, "inner must be an object"),
        ({"inner": {"x": {"ratio": "1"}}}, r"inner\.x\.ratio must be a number"),
        ({"inner": {"x": {}}}, r"inner\.x\.ratio is missing"),
        ({"inner": {"x": {"ratio": True}}}, r"inner\.x\.ratio must be a number"),
        ({"ready": 1}, "ready must be true or false"),
        ({"extra": 1}, "extra must be an object"),
        ({"other": 1}, "other is not known"),
    ],
)
def test_other_values_are_refused_with_their_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongTypeError, match=f"^{message}$"):
        from_json(Outer, {**GOOD, **changes})


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_only_objects_are_documents(value: Any) -> None:
    with pytest.raises(WrongTypeError, match=r"^the document must be an object$"):
        from_json(Outer, value)
