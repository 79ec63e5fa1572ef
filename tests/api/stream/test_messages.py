"""Parsing of the messages of a client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.stream.messages import End, Start, parse_message
from service.errors import InvalidMessage, InvalidOptions

PLAIN = {"type": "start", "sampling_rate": 8000, "encoding": "s16le"}


def parse(**members: Any) -> Start | End:
    return parse_message(json.dumps({**PLAIN, **members}))


def test_the_defaults() -> None:
    message = parse()
    assert isinstance(message, Start)
    assert message.model_dump() == {
        **PLAIN,
        "channels": 1,
        "select": "mix",
        "window": 3.0,
        "hop": None,
        "trim": False,
        "labels": None,
        "label_language": "en",
        "embedding": "none",
        "late": "skip",
    }
    assert (message.window_samples, message.hop_samples, message.shortest_samples) == (24_000, 8_000, 200)
    short = parse(window=0.5)
    assert isinstance(short, Start)
    assert short.hop_seconds == 0.5


def test_all_members() -> None:
    wishes: dict[str, Any] = {
        "sampling_rate": 44100,
        "encoding": "f32le",
        "channels": 2,
        "select": "split",
        "window": 2,
        "hop": 0.5,
        "trim": True,
        "labels": ["angry", "生气"],
        "label_language": "zh",
        "embedding": "utterance",
        "late": "wait",
    }
    message = parse(**wishes)
    assert message.model_dump() == {"type": "start", **wishes}
    assert isinstance(message, Start)
    assert (message.scored_channels, message.sample_bytes) == (2, 4)
    assert message.shortest_samples == 1103  # 25 ms are 1102.5 samples
    options = message.clip_options()
    assert (options.embedding, options.label_language, options.encoding) == ("utterance", "zh", "float")
    assert isinstance(parse_message('{"type": "end"}'), End)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "start",
        "[]",
        "7",
        "null",
        '"end"',
        "{}",
        '{"type": 7}',
        '{"type": "stop"}',
        '{"type": "end"',
        "[" * 10_000,
        "\x00",
    ],
)
def test_invalid_messages(text: str) -> None:
    with pytest.raises(InvalidMessage, match='whose type is "start" or "end"'):
        parse_message(text)


@pytest.mark.parametrize(
    ("members", "field", "message"),
    [
        ({"sampling_rate": 999}, "sampling_rate", "1000 to 48000"),
        ({"sampling_rate": 48_001}, "sampling_rate", "1000 to 48000"),
        ({"sampling_rate": "8000"}, "sampling_rate", "whole number"),
        ({"sampling_rate": 8000.5}, "sampling_rate", "whole number"),
        ({"sampling_rate": True}, "sampling_rate", "whole number"),
        ({"encoding": "mulaw"}, "encoding", "s16le, f32le"),
        ({"channels": 0}, "channels", "1 to 8"),
        ({"channels": 9}, "channels", "1 to 8"),
        ({"select": "all"}, "select", "mix, split"),
        ({"select": -1}, "select", "mix, split"),
        ({"select": 1}, "select", "there are 1 channels"),
        ({"window": 0.05}, "window", "0.1 to 30"),
        ({"window": 31}, "window", "0.1 to 30"),
        ({"hop": 0}, "hop", "0.1 to 30"),
        ({"hop": 4}, "hop", "not be longer than window"),
        ({"trim": 1}, "trim", "true or false"),
        ({"labels": []}, "labels", "1 to 64"),
        ({"labels": "angry"}, "labels", "list"),
        ({"labels": ["x"] * 65}, "labels", "1 to 64"),
        ({"label_language": "de"}, "label_language", "en, zh, native"),
        ({"embedding": "frame"}, "embedding", "none, utterance"),
        ({"late": "never"}, "late", "skip, wait"),
        ({"windows": 3}, "windows", "not an option; did you mean window?"),
        ({"sampling_rate": 48_000, "channels": 8, "select": "split", "window": 7.6}, "window", "at most 7.5 s"),
    ],
)
def test_invalid_members_are_named(members: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse(**members)
    assert [error.field for error in caught.value.errors] == [field]
    assert message in caught.value.errors[0].message


def test_every_invalid_member_is_named_once() -> None:
    text = '{"type": "start", "sampling_rate": 1, "hop": 0, "labels": [1, 2, 3], "foo": 1, "select": {}}'
    with pytest.raises(InvalidOptions) as caught:
        parse_message(text)
    assert [(error.field, error.kind) for error in caught.value.errors] == [
        ("encoding", "missing"),
        ("foo", "unknown"),
        ("hop", "invalid"),
        ("labels", "invalid"),
        ("sampling_rate", "invalid"),
        ("select", "invalid"),
    ]
    with pytest.raises(InvalidOptions, match="is not an option"):
        parse_message('{"type": "end", "now": true}')


def test_the_number_of_named_members_is_limited() -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse(**{f"{'x' * 100}{number}": 0 for number in range(1000)})
    assert len(caught.value.errors) == 20
    assert all(len(error.field) <= 64 for error in caught.value.errors)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_invalid_numbers(number: str) -> None:
    text = json.dumps({**PLAIN, "window": 0}).replace('"window": 0', f'"window": {number}')
    with pytest.raises((InvalidOptions, InvalidMessage)):
        parse_message(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(members=st.dictionaries(st.sampled_from([*Start.model_fields, "other"]), _JSON, max_size=6))
@settings(deadline=None, max_examples=200)
def test_any_input_is_parsed_or_refused(members: dict[str, Any]) -> None:
    try:
        message = parse(**members)
    except (InvalidMessage, InvalidOptions):
        return
    assert isinstance(message, Start | End)
