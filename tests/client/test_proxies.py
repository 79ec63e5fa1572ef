"""Which proxy the client takes, and that requests and streams take the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from emotion2vec_client import Problem, ProxyUnusable, Retries, Unreachable, open_stream
from emotion2vec_client.proxies import proxy_for

from service.cli import main
from service.data import EXAMPLES
from tests.api.double import RecognizerDouble
from tests.client.both_clients import ClientClass, both_clients, call
from tests.client.scripted_server import Reply, scripted
from tests.client.test_live_stream import serving

ELSEWHERE = "http://service.example"
PROXY = "http://proxy.example:3128"
UNREACHABLE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, Future[bytes]]]:
    """A proxy that answers its first request with 502: its URL, and the first line that it receives."""

    def serve() -> bytes:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as received:
            first = received.readline()
            while received.readline().strip():
                pass
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return first.strip()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        listener.settimeout(10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", thread.submit(serve)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str, variable: str) -> None:
    monkeypatch.setenv(variable, "socks5://proxy.example:1080")  # not even one that cannot be used
    assert proxy_for(httpx.URL(f"http://{host}:8000"), "socksio") is None


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"http_proxy": PROXY}, ELSEWHERE, PROXY),
        ({"http_proxy": PROXY}, "https://service.example", None),
        ({"https_proxy": PROXY}, "https://service.example", PROXY),
        ({"all_proxy": PROXY}, "https://service.example", PROXY),
        ({"ALL_PROXY": PROXY, "HTTP_PROXY": "http://other.example"}, ELSEWHERE, "http://other.example"),
        ({"http_proxy": "proxy.example:3128"}, ELSEWHERE, PROXY),
        ({"http_proxy": f"{PROXY}/path"}, ELSEWHERE, PROXY),
        ({"http_proxy": "http://me@proxy.example"}, ELSEWHERE, "http://me:@proxy.example"),
        ({"http_proxy": "http://me:secret@proxy.example"}, ELSEWHERE, "http://me:secret@proxy.example"),
        ({"http_proxy": ""}, ELSEWHERE, None),
        ({}, ELSEWHERE, None),
    ],
)
def test_the_variable_of_the_scheme_decides(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(httpx.URL(url), "socksio") == proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "service.example", True),
        ("service.example", "service.example", True),
        (".example", "service.example", True),
        ("other.example, service.example:8000", "service.example", True),
        ("ample", "service.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("fe80::/10", "[fe80::1]", True),
        ("fd00::5", "[fd00::5]", True),
        ("[fd00::5]", "[fd00::5]", True),
        ("fd00::5,fe80::/10,[::1]", "[fd00::6]", False),
        ("fd00::5,fe80::/10,[::1]", "service.example", False),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, direct: bool) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_for(httpx.URL(f"http://{host}:8000"), "socksio") is None) == direct


@both_clients
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("all_proxy", "socks5://me:secret@proxy.example:1080"),
        ("HTTP_PROXY", "socks4://me:secret@proxy.example:1080"),
        ("http_proxy", "http://me:sec/ret@proxy.example"),
        ("http_proxy", "http://"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, client_class: ClientClass, variable: str, value: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)  # as without the packages for SOCKS
    monkeypatch.setenv(variable, value)
    with pytest.raises(ProxyUnusable, match=variable) as error:
        client_class(ELSEWHERE)
    assert "sec" not in str(error.value)
    with pytest.raises(ProxyUnusable, match=variable):
        async with open_stream(ELSEWHERE, sampling_rate=8000):
            pass


@pytest.mark.parametrize("arguments", [["recognize", "--url", ELSEWHERE], ["stream", "--url", ELSEWHERE]])
def test_the_commands_name_it_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks4://proxy.example:1080")
    assert main([*arguments, str(EXAMPLES / "happy.wav")]) in (1, 2)
    assert "emotion2vec-service: HTTP_PROXY must begin with" in capsys.readouterr().err


@both_clients
def test_requests_to_loopback_pass_by_the_proxy(monkeypatch: pytest.MonkeyPatch, client_class: ClientClass) -> None:
    monkeypatch.setenv("http_proxy", UNREACHABLE)
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "[::1],fe80::/10")
    with scripted(Reply()) as server:
        call(client_class, server.url, "recognize", b"x")
    assert [request.path for request in server.received] == ["/recognize"]


async def test_streams_to_loopback_pass_by_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", UNREACHABLE)
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    async with serving(RecognizerDouble()) as url, open_stream(url, sampling_rate=16_000) as stream:
        assert stream.ready["type"] == "ready"


@both_clients
def test_requests_to_other_machines_take_the_proxy(monkeypatch: pytest.MonkeyPatch, client_class: ClientClass) -> None:
    with refusing_proxy() as (proxy, first_line):
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(Problem) as problem:
            call(client_class, ELSEWHERE, "models", settings={"retries": Retries(attempts=1)})
        assert problem.value.status == 502
        assert first_line.result(10) == b"GET http://service.example/models HTTP/1.1"


@both_clients
def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch, client_class: ClientClass) -> None:
    with refusing_proxy() as (proxy, first_line):
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(Unreachable):
            call(client_class, "https://service.example", "models", settings={"retries": Retries(attempts=1)})
        assert first_line.result(10) == b"CONNECT service.example:443 HTTP/1.1"


async def test_streams_to_other_machines_take_the_same_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_proxy() as (proxy, first_line):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("https_proxy", UNREACHABLE)  # websockets alone would prefer it
        with pytest.raises(Unreachable, match="through the proxy"):
            async with open_stream(ELSEWHERE, sampling_rate=8000):
                pass
        assert first_line.result(10) == b"CONNECT service.example:80 HTTP/1.1"
