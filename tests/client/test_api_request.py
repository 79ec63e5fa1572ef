"""Requests: the path, query, headers and body that are sent."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.client.both_clients import ClientClass, both_clients, call
from tests.client.scripted_server import Reply, scripted


@both_clients
def test_options_are_sent_as_query_parameters(client_class: ClientClass) -> None:
    options: dict[str, Any] = {"labels": ["angry", "中立"], "trim": False, "window": 0.5, "channels": 1, "hop": None}
    with scripted(Reply()) as server:
        call(client_class, server.url + "/emotion/", "recognize", b"RIFF", **options)
    (request,) = server.received
    assert request.path == "/emotion/recognize?labels=angry%2C%E4%B8%AD%E7%AB%8B&trim=false&window=0.5&channels=1"
    assert (request.method, request.body) == ("POST", b"RIFF")
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["content-length"] == "4"


@both_clients
def test_the_api_key_and_the_request_id_are_sent(client_class: ClientClass) -> None:
    with scripted(Reply()) as server:
        call(client_class, server.url, "recognize", b"x", request_id="mine", settings={"api_key": "0123456789abcdef"})
    assert server.received[0].headers["x-api-key"] == "0123456789abcdef"
    assert server.received[0].headers["x-request-id"] == "mine"


@both_clients
@pytest.mark.parametrize("name", ["path", "text", "bytes", "file"])
def test_a_file_may_be_a_path_bytes_or_a_file(client_class: ClientClass, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content := os.urandom(600_000))
    with scripted(Reply()) as server, path.open("rb") as opened:
        opened.seek(1000)  # it is still read from its beginning
        given = {"path": path, "text": str(path), "bytes": content, "file": opened}[name]
        call(client_class, server.url, "recognize", given)
        assert not opened.closed
    assert server.received[0].body == content


@both_clients
def test_invalid_files_and_timeouts_raise_before_a_request_is_sent(client_class: ClientClass, tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe: BinaryIO = Pipe(b"x")
    with scripted(Reply()) as server:
        with pytest.raises(ValueError, match="not seekable"):
            call(client_class, server.url, "recognize", pipe)
        with pytest.raises(FileNotFoundError):
            call(client_class, server.url, "recognize", tmp_path / "absent.wav")
        with pytest.raises(ValueError, match="no files"):
            call(client_class, server.url, "recognize_batch", [])
        with pytest.raises(ValueError, match="timeout"):
            call(client_class, server.url, "recognize", b"x", timeout=0)
    assert server.received == []


@both_clients
@pytest.mark.parametrize(
    ("url", "key", "message"),
    [("localhost:8000", None, "http://"), ("http://a:b", None, "URL"), ("http://a", "secret\n", "key")],
)
def test_a_malformed_url_or_key_raises_value_error(
    client_class: ClientClass, url: str, key: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        client_class(url, api_key=key)
    assert "secret" not in str(caught.value)
