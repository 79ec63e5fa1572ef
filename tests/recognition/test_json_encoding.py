from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.recognition.json_encoding import Base64, encode


def parsed(value: dict[str, object]) -> Any:
    return json.loads(b"".join(encode(value)))


def noise(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_small_answers_are_one_piece() -> None:
    tree = {"a": [1, 2.5, None, 'ü"\n'], "b": noise(3, 2), "c": Base64(noise(4)), "d": np.float32(0.1)}
    assert len(encode(tree)) == 1
    assert parsed(tree)["a"] == [1, 2.5, None, 'ü"\n']
    assert b'"d":0.1}' in encode(tree)[0]  # no digits of float64


@pytest.mark.parametrize("shape", [(8193,), (100_000,), (8193, 1), (1000, 9), (3, 8192), (2, 20_000)])
def test_large_arrays_are_encoded_in_pieces_without_loss(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    tree = {"before": 1, "list": [{"x": 1}, {"deep": array}], "after": [], "same": array}
    pieces = encode(tree)
    assert len(pieces) > 3
    answer = json.loads(b"".join(pieces))
    assert answer["before"] == 1
    assert answer["list"][0] == {"x": 1}
    assert answer["after"] == []
    for read in (answer["list"][1]["deep"], answer["same"]):
        assert np.array_equal(np.array(read, np.float32), array)  # to the last bit


@pytest.mark.parametrize("shape", [(1,), (7,), (3000, 5), (8193,), (70_001,)])
def test_base64_is_little_endian_float32_row_by_row(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    data = base64.b64decode(parsed({"data": Base64(array)})["data"], validate=True)
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(shape), array)


def test_arrays_need_not_be_contiguous() -> None:
    for array in (noise(4, 6).T, noise(4000, 6).T, noise(40, 600)[:, ::2]):
        assert np.array_equal(np.array(parsed({"x": array})["x"], np.float32), array)
        data = base64.b64decode(parsed({"x": Base64(array)})["x"])
        assert np.array_equal(np.frombuffer(data, "<f4").reshape(array.shape), array)


def test_pieces_are_small() -> None:
    assert max(map(len, encode({"x": noise(500, 1024), "y": Base64(noise(500, 1024))}))) < 300_000


def test_other_objects_are_an_error() -> None:
    with pytest.raises(TypeError):
        encode({"x": object()})


@given(
    arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)
def test_every_float_is_decoded_to_the_same_value(array: Any) -> None:
    assert np.array_equal(np.array(parsed({"x": array})["x"], np.float32), array)
