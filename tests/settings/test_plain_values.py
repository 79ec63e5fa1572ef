"""Values that are read without pydantic are those that pydantic would have read."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest

from service.settings.plain_values import plain_values
from service.settings.settings import SETTINGS, Settings
from service.settings.validation import validated

TEXTS = [
    *(
        "",
        " ",
        "-1",
        "-0",
        "0",
        "00",
        "1",
        " 1",
        "1 ",
        "+1",
        "1.0",
        "1_0",
        "0.5",
        ".5",
        "5.",
        "1e3",
        "1E400",
        "nan",
        "inf",
    ),
    *(
        "2",
        "16",
        "33",
        "40",
        "40.0",
        "40.1",
        "86400",
        "86400.5",
        "86401",
        "65535",
        "65536",
        "1000001",
        "9" * 16,
        "9" * 400,
    ),
    *("true", "false", "True", "yes", "off", "auto", "cpu", "cuda", "cuda:1", "cuda:1000", "cpu\n", "/a", "/a/", "a/b"),
    *("~", "~/models", "/models", "größe", "\udcff", "a" * 255, "a" * 256, "a" * 1025, "auto ", "fp32", "INT8"),
]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_plain_value_is_what_pydantic_makes_of_it(name: str) -> None:
    kind = SETTINGS[name].type
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    values: list[Any] = [*TEXTS, *choices, True, False, 1, 1.5, None, [], {}]
    for value in values:
        read = plain_values({name: value})
        if read is not None:
            assert read == validated({name: value}, {}), value
            assert type(read[name]) is type(validated({name: value}, {})[name])


@pytest.mark.parametrize(
    "flags",
    [
        {"model": "iic/emotion2vec_plus_large", "device": "cpu", "dtype": "fp32", "backend": "onnx"},
        {"threads": "2", "offline": True, "cache_dir": "/cache", "compile": "off"},
        {"max_duration": "20", "max_utterance_duration": "19.5"},
    ],
)
def test_usual_flags_are_plain(flags: dict[str, Any]) -> None:
    assert plain_values(flags) is not None


def test_one_value_that_is_not_plain_leaves_all_to_pydantic() -> None:
    assert plain_values({"threads": "2", "cache_dir": "~/models"}) is None


def test_limits_of_values_together_hold_for_plain_ones() -> None:
    with pytest.raises(ValueError, match="max_queue_seconds must be at least"):
        Settings(max_queue_seconds=10.0)
