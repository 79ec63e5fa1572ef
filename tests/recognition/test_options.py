from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from service.errors import InvalidOptions
from service.recognition.options import Options, parse_options

FRAME = ("granularity", "frame")


def errors_of(query: list[tuple[str, str]], form: list[tuple[str, str]] | None = None) -> dict[str, tuple[str, str]]:
    with pytest.raises(InvalidOptions) as caught:
        parse_options(query, form or [])
    return {error.field: (error.kind, error.message) for error in caught.value.errors}


def test_defaults() -> None:
    options = parse_options([])
    assert options == Options()
    assert options.chosen() == {}
    assert asdict(options) == {
        "granularity": "utterance",
        "embedding": "none",
        "encoding": "float",
        "labels": None,
        "label_language": "en",
        "channels": "mix",
        "trim": True,
        "window": None,
        "hop": None,
        "start": None,
        "end": None,
        "timeout": None,
    }
    assert not options.over_time


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("granularity", "utterance", "utterance"),
        ("granularity", "frame", "frame"),
        ("granularity", "segment", "segment"),
        ("embedding", "none", "none"),
        ("embedding", "utterance", "utterance"),
        ("embedding", "frame", "frame"),
        ("encoding", "float", "float"),
        ("encoding", "base64", "base64"),
        ("labels", "happy", ("happy",)),
        ("labels", "happy, 生气 ,生气/angry", ("happy", "生气", "生气/angry")),
        ("label_language", "en", "en"),
        ("label_language", "zh", "zh"),
        ("label_language", "native", "native"),
        ("channels", "mix", "mix"),
        ("channels", "split", "split"),
        ("channels", "0", 0),
        ("channels", "31", 31),
        ("trim", "true", True),
        ("trim", "false", False),
        ("start", "0", 0.0),
        ("start", "1.5", 1.5),
        ("end", "1e1", 10.0),
        ("timeout", ".5", 0.5),
    ],
)
def test_good_values(name: str, text: str, value: Any) -> None:
    assert getattr(parse_options([(name, text)]), name) == value
    assert getattr(parse_options([], [(name, text)]), name) == value


@pytest.mark.parametrize(("name", "text", "value"), [("window", "0.02", 0.02), ("hop", "1", 1.0)])
def test_good_values_of_windows(name: str, text: str, value: float) -> None:
    assert getattr(parse_options([FRAME, (name, text)]), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("granularity", ""),
        ("granularity", "segments"),
        ("granularity", "Frame"),
        ("embedding", "all"),
        ("encoding", "hex"),
        ("labels", ""),
        ("labels", "happy,,sad"),
        ("labels", ",".join("x" * 65)),
        ("label_language", "de"),
        ("channels", "-1"),
        ("channels", "left"),
        ("channels", "1024"),
        ("channels", "99999"),
        ("channels", "１"),
        ("channels", "1.0"),
        ("trim", "1"),
        ("trim", "True"),
        ("start", "-0.1"),
        ("start", "1s"),
        ("start", "1_0"),
        ("start", " 1"),
        ("start", "nan"),
        ("start", "1e999"),
        ("end", "0"),
        ("end", "inf"),
        ("end", "0x10"),
        ("timeout", "0"),
        ("timeout", "-1"),
        ("timeout", ""),
    ],
)
def test_bad_values(name: str, text: str) -> None:
    errors = errors_of([(name, text)])
    assert list(errors) == [name]
    kind, message = errors[name]
    assert kind == "invalid"
    assert message.startswith("must be ")


@pytest.mark.parametrize("name", ["window", "hop"])
@pytest.mark.parametrize("text", ["0", "0.019", "-1", "nan", ""])
def test_bad_values_of_windows(name: str, text: str) -> None:
    errors = errors_of([FRAME, (name, text)])
    assert list(errors) == [name]
    assert errors[name][0] == "invalid"


@pytest.mark.parametrize("name", ["window", "hop"])
def test_windows_need_frames(name: str) -> None:
    assert errors_of([(name, "1")]) == {name: ("conflict", "is only of use with granularity=frame")}


def test_the_end_is_after_the_start() -> None:
    assert errors_of([("start", "2"), ("end", "2")]) == {"end": ("conflict", "must be after start")}


@pytest.mark.parametrize(
    ("name", "hint"), [("granularty", "granularity"), ("label", "labels"), ("Trim", "trim"), ("qwerty", None)]
)
def test_unknown_options_get_a_hint(name: str, hint: str | None) -> None:
    kind, message = errors_of([(name, "x")])[name]
    assert kind == "unknown"
    assert message == "is not an option" + (f"; did you mean {hint}?" if hint else "")


def test_long_names_of_unknown_options_are_shortened() -> None:
    (name,) = errors_of([("x" * 10_000, "x")])
    assert len(name) == 64


def test_repeated_options() -> None:
    assert errors_of([("trim", "true"), ("trim", "true")]) == {"trim": ("repeated", "is given more than once")}
    assert errors_of([], [("end", "1"), ("end", "2")]) == {"end": ("repeated", "is given more than once")}


def test_labels_may_be_repeated() -> None:
    assert parse_options([("labels", "a,b"), ("labels", "c")]).labels == ("a", "b", "c")


def test_query_and_form_must_agree() -> None:
    options = parse_options([("trim", "false"), ("end", "2")], [("trim", "false"), ("start", "1")])
    assert options == Options(trim=False, start=1.0, end=2.0)
    assert options.chosen() == {"trim": False, "start": 1.0, "end": 2.0}
    errors = errors_of([("trim", "false")], [("trim", "true")])
    assert errors == {"trim": ("conflict", "is in the query and in the form, with different values")}


def test_all_errors_are_reported_together() -> None:
    errors = errors_of([("trim", "no"), ("hop", "x")], [("tirm", "true"), ("start", "-1")])
    assert list(errors) == ["hop", "start", "tirm", "trim"]


def test_over_time() -> None:
    assert parse_options([FRAME]).over_time
    assert parse_options([("embedding", "frame")]).over_time
    assert not parse_options([("embedding", "utterance")]).over_time
