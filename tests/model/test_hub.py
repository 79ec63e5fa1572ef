from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from service.errors import HubUnreachable, ModelNotFound
from service.model import hub

CONTENT = {"config.yaml": b"model: Emotion2vec\n", "tokens.txt": b"angry\n", "model.pt": b"weights" * 1000}


class FakeHub(BaseHTTPRequestHandler):
    """The file endpoints of both hubs, for one model each."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        url = urlsplit(self.path)
        name = None
        if url.path == "/api/v1/models/iic/emotion2vec_plus_seed/repo":
            name = parse_qs(url.query)["FilePath"][0]
        elif url.path.startswith("/emotion2vec/emotion2vec_plus_seed/resolve/main/"):
            name = url.path.rpartition("/")[2]
        data = CONTENT.get(name or "", b"{}")
        self.send_response(200 if name in CONTENT or url.path == "/" else 404)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if name not in CONTENT:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        pass


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hubs' libraries keep state in the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths requested from a server that both endpoints point to."""
    asked: list[str] = []
    handler = type("Handler", (FakeHub,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        for variable in ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{http.server_port}")
        yield asked
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        ("iic/emotion2vec_plus_large", None, ("modelscope", "iic/emotion2vec_plus_large")),
        ("emotion2vec/emotion2vec_plus_large", None, ("huggingface", "emotion2vec/emotion2vec_plus_large")),
        ("iic/emotion2vec_plus_large", "huggingface", ("huggingface", "emotion2vec/emotion2vec_plus_large")),
        ("emotion2vec/emotion2vec_plus_large", "modelscope", ("modelscope", "iic/emotion2vec_plus_large")),
        ("somebody/else", None, ("modelscope", "somebody/else")),
        ("somebody/else", "huggingface", ("huggingface", "somebody/else")),
    ],
)
def test_names_on_the_hubs(model: str, source: hub.Hub | None, expected: tuple[str, str]) -> None:
    assert hub.resolve(model, source) == expected


def test_both_names_are_one_model() -> None:
    assert hub.canonical("emotion2vec/emotion2vec_plus_seed") == "iic/emotion2vec_plus_seed"
    assert all(hub.canonical(name) == name for name in hub.KNOWN_MODELS)


@pytest.mark.torch
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_only_the_needed_files_are_fetched(server: list[str], tmp_path: Path, source: hub.Hub) -> None:
    pytest.importorskip("modelscope_hub")
    origin = hub.fetch("iic/emotion2vec_plus_seed", tmp_path / "model", hub=source)
    assert origin == f"{source}:{hub.resolve('iic/emotion2vec_plus_seed', source)[1]}"
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()} == CONTENT


@pytest.mark.torch
def test_complete_files_are_not_fetched_again(server: list[str], tmp_path: Path) -> None:
    pytest.importorskip("modelscope_hub")
    (tmp_path / "config.yaml").write_bytes(CONTENT["config.yaml"])
    hub.fetch("iic/emotion2vec_plus_seed", tmp_path)
    assert [path for path in server if "config.yaml" in path] == []
    assert len([path for path in server if "model.pt" in path]) == 1


@pytest.mark.torch
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_a_model_that_the_hub_does_not_have(server: list[str], tmp_path: Path, source: hub.Hub) -> None:
    pytest.importorskip("modelscope_hub")
    with pytest.raises(ModelNotFound, match=r"(iic|emotion2vec)/nothing"):
        hub.fetch("iic/nothing", tmp_path, hub=source)


@pytest.mark.torch
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_a_closed_port_is_an_error_within_seconds(tmp_path: Path, source: hub.Hub) -> None:
    pytest.importorskip("modelscope_hub")
    began = time.monotonic()
    with pytest.raises(HubUnreachable, match=r"copy config\.yaml, tokens\.txt, model\.pt .*--model.*models pull"):
        hub.fetch("iic/emotion2vec_plus_seed", tmp_path / "model", hub=source)
    assert time.monotonic() - began < 30  # the libraries alone would try for minutes
    assert not (tmp_path / "model").exists()


@pytest.mark.torch
def test_a_hub_that_never_answers_is_an_error_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("modelscope_hub")
    monkeypatch.setattr(hub, "_CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(HubUnreachable, match="cannot be reached"):
            hub.fetch("iic/emotion2vec_plus_seed", tmp_path)
    assert time.monotonic() - began < 30  # the libraries alone would try for minutes


@pytest.mark.torch
def test_name_resolution_that_hangs_is_an_error_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("modelscope_hub")
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        released.wait(10)
        raise OSError("no name server")

    monkeypatch.setattr(hub, "_CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "modelscope.example")
    with pytest.raises(HubUnreachable, match=r"https://modelscope\.example cannot be reached"):
        hub.fetch("iic/emotion2vec_plus_seed", tmp_path)
    released.set()
