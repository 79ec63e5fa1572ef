"""The file object that C libraries read from: none of its methods may raise."""

from __future__ import annotations

import errno
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ServiceError
from service.preprocess.byte_source import ByteSource

DATA = bytes(range(100))


def test_reads_like_a_file() -> None:
    source, file = ByteSource(DATA), io.BytesIO(DATA)
    for offset, whence in ((10, os.SEEK_SET), (5, os.SEEK_CUR), (-20, os.SEEK_END), (0, os.SEEK_SET)):
        assert source.seek(offset, whence) == file.seek(offset, whence)
        assert source.tell() == file.tell()
        assert source.read(7) == file.read(7)
        buffer = bytearray(9)
        assert source.readinto(buffer) == 9
        assert bytes(buffer) == file.read(9)
    assert source.read() == file.read()
    assert source.read(5) == b""
    assert source.size == 100


def test_has_no_name() -> None:
    assert not hasattr(ByteSource(io.BytesIO(DATA)), "name")


def test_impossible_seeks_do_not_change_the_position() -> None:
    source = ByteSource(DATA)
    source.seek(40)
    for offset, whence in ((-1, os.SEEK_SET), (-41, os.SEEK_CUR), (-101, os.SEEK_END), (0, 65_536)):
        assert source.seek(offset, whence) == -errno.EINVAL
        assert source.tell() == 40


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63), st.sampled_from([0, 1, 2, 3]), st.integers(-1, 200))))
def test_never_raises(moves: list[tuple[int, int, int]]) -> None:
    source = ByteSource(DATA)
    for offset, whence, size in moves:
        source.seek(offset, whence)
        position = source.tell()
        assert 0 <= position <= 100
        assert source.read(size) == (DATA[position:] if size < 0 else DATA[position : position + size])
    source.check()


def test_check_raises_after_a_failed_read() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("disk is gone")

    source = ByteSource(Broken(DATA))
    source.check()
    assert source.read(5) == b""
    with pytest.raises(ServiceError, match="read back") as caught:
        source.check()
    assert "disk" not in caught.value.detail


def test_a_file_whose_size_cannot_be_determined() -> None:
    class Broken(io.BytesIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            raise OSError("disk is gone")

    with pytest.raises(ServiceError):
        ByteSource(Broken(DATA)).check()


def test_a_file_that_was_closed() -> None:
    file = io.BytesIO(DATA)
    source = ByteSource(file)
    file.close()
    assert source.read(5) == b""
    for closed in (source, ByteSource(file)):
        with pytest.raises(ServiceError):
            closed.check()
