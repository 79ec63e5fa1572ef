"""A file that comes piece by piece reads like one that is there."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.preprocess.byte_source import ByteSource
from service.preprocess.ffmpeg.chunked_file import PIECE, PiecedFile

DATA = np.random.default_rng(0).bytes(3 * PIECE + 1000)


def pieced(data: bytes, asked: list[int]) -> io.BufferedReader:
    def fetch(place: int) -> bytes:
        asked.append(place)
        return data[place : place + PIECE]

    return io.BufferedReader(PiecedFile(len(data), data[:PIECE], fetch), PIECE)


places = st.one_of(st.integers(0, len(DATA)), st.sampled_from([0, PIECE - 1, PIECE, 2 * PIECE, len(DATA)]))


@given(st.sampled_from([0, 1, PIECE - 1, PIECE, PIECE + 1, len(DATA)]), st.lists(st.tuples(places, places)))
def test_reads_like_a_file(size: int, jumps: list[tuple[int, int]]) -> None:
    source, expected = ByteSource(pieced(DATA[:size], [])), ByteSource(DATA[:size])
    assert source.size == size
    for place, length in jumps:
        assert source.at(place, length) == expected.at(place, length)
        assert source.tell() == expected.tell()
    assert source.at(0, -1) == DATA[:size]


def test_each_piece_is_asked_for_once() -> None:
    asked: list[int] = []
    source = ByteSource(pieced(DATA, asked))
    for _ in range(3):
        source.seek(0)
        while source.read(30_000):
            pass
    assert asked == [PIECE, 2 * PIECE, 3 * PIECE]
