"""A file that is fetched in chunks reads like one in memory."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.preprocess.byte_source import ByteSource
from service.preprocess.ffmpeg.chunked_file import CHUNK, ChunkedFile

DATA = np.random.default_rng(0).bytes(3 * CHUNK + 1000)


def chunked(data: bytes, requested: list[int]) -> io.BufferedReader:
    def fetch(position: int) -> bytes:
        requested.append(position)
        return data[position : position + CHUNK]

    return io.BufferedReader(ChunkedFile(len(data), data[:CHUNK], fetch), CHUNK)


positions = st.one_of(st.integers(0, len(DATA)), st.sampled_from([0, CHUNK - 1, CHUNK, 2 * CHUNK, len(DATA)]))


@given(st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(DATA)]), st.lists(st.tuples(positions, positions)))
def test_reads_like_a_file(size: int, jumps: list[tuple[int, int]]) -> None:
    source, expected = ByteSource(chunked(DATA[:size], [])), ByteSource(DATA[:size])
    assert source.size == size
    for place, length in jumps:
        assert source.at(place, length) == expected.at(place, length)
        assert source.tell() == expected.tell()
    assert source.at(0, -1) == DATA[:size]


def test_each_chunk_is_requested_once() -> None:
    requested: list[int] = []
    source = ByteSource(chunked(DATA, requested))
    for _ in range(3):
        source.seek(0)
        while source.read(30_000):
            pass
    assert requested == [CHUNK, 2 * CHUNK, 3 * CHUNK]
