"""Where a server process listens: both address families, and Unix domain sockets; and the health check of the image."""

from __future__ import annotations

import importlib.util
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from service.data import EXAMPLES
from tests.api.server.test_server import COMMAND, serving

ROOT = Path(__file__).parents[3]
PROXIED = ["--trusted-proxies", "127.0.0.1", "--rate-limit", "1", "--rate-burst", "1"]

_spec = importlib.util.spec_from_file_location("health", ROOT / "docker" / "health.py")
assert _spec is not None
assert _spec.loader is not None
health = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(health)

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
def test_both_address_families() -> None:
    with serving("--host", "::", *PROXIED) as (_, url):
        port = httpx.URL(url).port
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/livez").status_code == 200
        # Addresses of IPv4 are not mapped to IPv6, which the networks of trusted_proxies would not contain.
        forwarded = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(3)]
        assert {httpx.get(f"http://127.0.0.1:{port}/models", headers=each).status_code for each in forwarded} == {200}


@needs_ipv6
def test_a_port_that_one_family_uses_is_an_error() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        command = [*COMMAND[:-1], str(taken.getsockname()[1]), "--host", "::"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "ddress already in use" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_unix_domain_socket(tmp_path: Path) -> None:
    path = tmp_path / "a b.sock"
    flags = ["--uds", str(path), *PROXIED]
    with serving(*flags) as (process, url):
        assert process.stdout is not None
        process.stdout.readline()
        curl = shlex.split(process.stdout.readline())
        assert curl[:3] == ["curl", "--unix-socket", str(path)]
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url=url) as client:
            names = {"Host": "speech.example.com"}  # as a proxy passes it on
            with (EXAMPLES / "happy.wav").open("rb") as file:
                answer = client.post("/recognize", files={"file": file}, headers=names, timeout=30)
            assert answer.json()["label"] == "happy"
            forwarded = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(3)]
            assert [client.get("/models", headers=each).status_code for each in forwarded] == [200] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    transport = httpx.HTTPTransport(uds=str(path))
    # What the first process has left behind is replaced.
    with serving(*flags) as (_, url), httpx.Client(transport=transport, base_url=url) as client:
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("name", ["absent/a.sock", "used.sock"])
def test_a_unix_domain_socket_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    command = [*COMMAND, "--uds", str(tmp_path / name)]
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "used.sock"))
        taken.listen()
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "cannot listen: " in run.stderr
    assert "Traceback" not in run.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_the_health_check_asks_where_the_service_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "service.yaml"
    config.write_text(f"port: {free_port()}\nhost: 127.0.0.2\n")
    monkeypatch.setattr(health, "COMMAND_LINE", tmp_path / "cmdline")
    (tmp_path / "cmdline").write_bytes(b"python\0emotion2vec-service\0serve\0")
    monkeypatch.setenv("SER_CONFIG", str(config))
    assert health.main() == 1
    with serving(command=COMMAND[:-2]):
        assert health.main() == 0


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        ([], ("127.0.0.1", 8000)),
        (["--port", "9000", "--host", "0.0.0.0"], ("127.0.0.1", 9000)),
        (["--port=9000", "--host=::", "--no-docs", "--threads", "2"], ("::1", 9000)),
        (["--host", "192.0.2.1"], ("192.0.2.1", 8000)),
    ],
)
@pytest.mark.parametrize("start", [["emotion2vec-service"], ["/sbin/docker-init", "--", "emotion2vec-service"]])
def test_the_health_check_reads_the_flags(start: list[str], flags: list[str], place: tuple[str, int]) -> None:
    line = b"".join(each.encode() + b"\0" for each in [*start, "serve", *flags])
    connection = health.connection(health.settings(line))
    assert (connection.host, connection.port) == place


def test_the_health_check_of_a_unix_domain_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.sock"
    monkeypatch.setattr(health, "COMMAND_LINE", tmp_path / "cmdline")
    (tmp_path / "cmdline").write_bytes(b"emotion2vec-service\0serve\0--uds\0%b\0" % str(path).encode())
    assert health.main() == 1
    with serving("--uds", str(path)):
        assert health.main() == 0
