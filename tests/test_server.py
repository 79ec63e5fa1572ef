"""The server as a process: ready, answering, drained at a signal, and what operators see when it cannot start."""

import concurrent.futures
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "service" / "examples" / "happy.wav"
COMMAND = (sys.executable, "-m", "service.cli", "serve", "--port", "0")


@contextmanager
def serving(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that is ready, and its URL."""
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"Ready after .* at (http://\S+)", line)
        assert match, line
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()


def post(url: str, **fields: str) -> httpx.Response:
    with EXAMPLE.open("rb") as file:
        return httpx.post(f"{url}/recognize", files={"file": file}, data=fields, timeout=30)


def test_the_printed_curl_line_gets_the_answer() -> None:
    with serving() as (process, url):
        assert process.stdout is not None
        process.stdout.readline()
        curl = process.stdout.readline().split()
        assert curl[:2] == ["curl", "-F"]
        assert curl[-1] == f"{url}/recognize"
        answer = subprocess.run([*curl, "--silent"], capture_output=True, check=True, timeout=30)
        assert json.loads(answer.stdout)["label"] == "happy"
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert "ser_model_info{" in httpx.get(f"{url}/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_stop_signal_amid_requests_loses_none_that_was_accepted() -> None:
    with serving("--threads", "1") as (process, url), concurrent.futures.ThreadPoolExecutor(50) as pool:
        post(url)
        answers = [pool.submit(post, url) for _ in range(50)]
        time.sleep(0.15)
        process.send_signal(signal.SIGTERM)
        refused = served = unconnected = 0
        for answer in answers:
            try:
                response = answer.result(timeout=30)
            except httpx.ConnectError:
                unconnected += 1  # came after the listening socket had closed; it was never accepted
                continue
            if response.status_code == 200:
                assert response.json()["label"] == "happy"
                served += 1
            else:
                assert response.status_code == 503
                assert response.json()["code"] == "draining"
                assert int(response.headers["retry-after"]) >= 1
                refused += 1
        assert served > 0
        assert served + refused + unconnected == 50
        assert process.wait(10) == 0


def test_a_second_signal_stops_at_once() -> None:
    with serving() as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stalled:
            head = "POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\nContent-Length: 99999\r\n\r\nRIFF"
            stalled.sendall(head.encode())
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            assert process.poll() is None, "the upload under way is waited for"
            process.send_signal(signal.SIGINT)
            process.wait(5)


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = subprocess.run([*COMMAND[:-1], port], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "address already in use" in run.stderr


def test_a_model_that_cannot_be_opened_ends_the_process(tmp_path: Path) -> None:
    flags = ["--dtype", "fp16", "--backend", "onnx", "--cache-dir", str(tmp_path)]
    run = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "fp16" in run.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_logs_are_lines_of_the_format_asked_for(log_format: str) -> None:
    with serving("--log-format", log_format) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    lines = errors.splitlines()
    assert lines
    if log_format == "json":
        assert all("message" in json.loads(line) for line in lines)
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in lines)
