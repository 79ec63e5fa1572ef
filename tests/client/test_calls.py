"""What is sent."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from emotion2vec_client import AsyncClient, Client

from tests.client.either import KINDS, call
from tests.client.scripted import Reply, scripted

either = pytest.mark.parametrize("kind", KINDS)


@either
def test_options_are_sent_as_the_service_reads_them(kind: str) -> None:
    options: dict[str, Any] = {"labels": ["angry", "中立"], "trim": False, "window": 0.5, "channels": 1, "hop": None}
    with scripted(Reply()) as server:
        call(kind, server.url + "/emotion/", "recognize", b"RIFF", **options)
    (asked,) = server.asked
    assert asked.path == "/emotion/recognize?labels=angry%2C%E4%B8%AD%E7%AB%8B&trim=false&window=0.5&channels=1"
    assert (asked.method, asked.body) == ("POST", b"RIFF")
    assert asked.headers["content-type"] == "application/octet-stream"
    assert asked.headers["content-length"] == "4"


@either
def test_the_key_and_the_id_are_sent(kind: str) -> None:
    with scripted(Reply()) as server:
        call(kind, server.url, "recognize", b"x", request_id="mine", settings={"api_key": "0123456789abcdef"})
    assert server.asked[0].headers["x-api-key"] == "0123456789abcdef"
    assert server.asked[0].headers["x-request-id"] == "mine"


@either
@pytest.mark.parametrize("name", ["path", "text", "bytes", "file"])
def test_a_file_may_be_a_path_bytes_or_a_file(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content := os.urandom(600_000))
    with scripted(Reply()) as server, path.open("rb") as opened:
        opened.seek(1000)  # it is read from its beginning all the same
        given = {"path": path, "text": str(path), "bytes": content, "file": opened}[name]
        call(kind, server.url, "recognize", given)
        assert not opened.closed
    assert server.asked[0].body == content


@either
def test_a_file_that_cannot_be_sent_twice_or_read_is_refused_before_anything_is_sent(kind: str, tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe: BinaryIO = Pipe(b"x")
    with scripted(Reply()) as server:
        with pytest.raises(ValueError, match="cannot seek"):
            call(kind, server.url, "recognize", pipe)
        with pytest.raises(FileNotFoundError):
            call(kind, server.url, "recognize", tmp_path / "absent.wav")
        with pytest.raises(ValueError, match="no files"):
            call(kind, server.url, "recognize_batch", [])
        with pytest.raises(ValueError, match="timeout"):
            call(kind, server.url, "recognize", b"x", timeout=0)
    assert server.asked == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("url", "key", "told"),
    [("localhost:8000", None, "http://"), ("http://a:b", None, "URL"), ("http://a", "secret\n", "key")],
)
def test_what_can_never_work_is_refused_at_once(kind: type[Client], url: str, key: str | None, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        kind(url, api_key=key)
    assert "secret" not in str(caught.value)


def test_importing_the_client_loads_nothing_of_the_server_or_the_model() -> None:
    program = (
        "import sys; before = set(sys.modules); import emotion2vec_client; print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(run.stdout.split())
    assert "httpx" in loaded
    heavy = {"fastapi", "numpy", "onnxruntime", "pydantic", "pyarrow", "starlette", "torch", "tqdm", "uvicorn"}
    assert heavy & loaded == set()
    assert {name for name in loaded if name.partition(".")[0] == "service"} == set()
