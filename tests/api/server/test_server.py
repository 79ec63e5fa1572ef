"""The server as a process: start, answers, draining at a signal, and errors at the start."""

import asyncio
import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import pytest
from emotion2vec_client import Disconnected, Problem, open_stream

from loadtests.common.process_resources import children
from service.data import EXAMPLES
from tests.audio_samples import encode, speech
from tests.preprocess import bombs

EXAMPLE = EXAMPLES / "happy.wav"
OK_POSTS = 'ser_http_requests_total{code="200",method="POST"'
COMMAND = (sys.executable, "-m", "service.cli", "serve", "--answer-cache-bytes", "0", "--port", "0")


@contextmanager
def serving(
    *flags: str, command: Sequence[str] = COMMAND, stderr: int | IO[str] = subprocess.PIPE, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A ready server process and its URL; `options` are those of `subprocess.Popen`."""
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=stderr, text=True, **options)
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


def test_the_printed_curl_line_works() -> None:
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


def metric(client: httpx.Client, name: str) -> float:
    """The sum of all samples whose line begins with `name`; a brace or a space at its end excludes longer names."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def state(client: httpx.Client, request_id: str) -> str:
    found: str = client.get(f"/requests/{request_id}").json()["state"]
    return found


def test_a_stop_signal_under_load_loses_no_accepted_request() -> None:
    clip = encode("wav-s16", np.tile(speech(), 16), 16_000)
    with (
        serving("--threads", "1") as (process, url),
        concurrent.futures.ThreadPoolExecutor(50) as pool,
        httpx.Client(base_url=url, timeout=60) as watch,
    ):
        names = [f"call-{number}" for number in range(50)]
        clients = [httpx.Client(base_url=url, timeout=60, headers={"X-Request-ID": name}) for name in names]
        answers = [pool.submit(client.post, "/recognize", files={"file": clip}) for client in clients]
        while metric(watch, "ser_requests_in_flight ") + metric(watch, OK_POSTS) < 50:
            time.sleep(0.01)
        # A request is accepted once the recognizer has its clip; one that is still being decoded may be refused.
        while {state(watch, name) for name in names} & {"receiving", "decoding"}:
            time.sleep(0.01)
        assert metric(watch, "ser_requests_in_flight ") > 0
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        late = post(url)
        assert (late.status_code, late.json()["code"]) == (503, "draining")
        assert int(late.headers["retry-after"]) >= 1
        assert [answer.result(timeout=60).status_code for answer in answers] == [200] * 50
        for client in clients:
            client.close()
        assert process.wait(15) == 0


def test_a_stop_signal_gives_every_stream_its_result() -> None:
    """Also streams that keep sending or send nothing get it; then the process exits."""
    samples = (np.tile(speech(), 20) * 32767).astype("<i2").tobytes()

    async def talk(url: str, pause: float) -> list[str]:
        kinds: list[str] = []
        async with open_stream(url, sampling_rate=16_000) as stream:

            async def send() -> None:
                with suppress(Disconnected):
                    for begin in range(0, len(samples), 3200):
                        await stream.send(samples[begin : begin + 3200])
                        await asyncio.sleep(pause)

            sending = asyncio.create_task(send())
            try:
                async for event in stream:
                    kinds.append(event["type"])
                    ready.add(pause)
            except Problem as problem:
                kinds.append(problem.code)
            sending.cancel()
        return kinds

    ready: set[float] = set()

    async def all_of_them(process: subprocess.Popen[str], url: str) -> list[list[str]]:
        # Ten times real time, real time, and 0.1 s a minute, for which no window becomes due.
        talks = [asyncio.create_task(talk(url, pause)) for pause in (0.01, 0.1, 60.0)]
        async with asyncio.timeout(30):
            while ready != {0.01, 0.1} or metric(watch, "ser_streams ") < 3:  # noqa: ASYNC110 - polled from a process
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        return await asyncio.gather(*talks)

    with serving("--threads", "1") as (process, url), httpx.Client(base_url=url) as watch:
        found = asyncio.run(all_of_them(process, url))
        assert process.wait(10) == 0
    assert [kinds[-2:] for kinds in found] == [["result", "draining"]] * 3
    assert found[2] == ["window", "result", "draining"]


def resident_bytes(process: subprocess.Popen[str]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]  # Linux always has it


def hostile() -> dict[str, tuple[bytes, int]]:
    """Uploads that are not usable audio, and the expected status of each."""
    quarter = (np.zeros((1, 4000), np.float32), 16_000)
    return {
        "empty": (b"", 422),
        "10 ms": (encode("wav-s16", speech(seconds=0.01), 16_000), 422),
        "NaN": (encode("wav-f32", np.full_like(quarter[0], np.nan), 16_000), 422),
        "truncated": (encode("m4a", *quarter)[:-500], 422),
        "text": (b"this is no audio\n" * 100, 415),
        "zip": (b"PK\x03\x04" + bytes(500), 415),
        "ffconcat": (b"ffconcat version 1.0\nfile /etc/passwd\n", 415),
        "SDP": (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n", 415),
        "m3u8": (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", 415),
        "6 hours of FLAC": (bombs.long_flac(6 * 3600), 413),
        "an hour of Opus": (bombs.long_opus(3600, "ogg"), 413),
        "an index of gigabytes": (bombs.mp4_with_index(2**29), 422),
    }


def test_hostile_uploads_get_their_status_and_do_not_affect_others() -> None:
    uploads = hostile()
    with serving() as (process, url), concurrent.futures.ThreadPoolExecutor(5) as pool:
        good = post(url).json()["scores"]
        before = resident_bytes(process)
        attacked = threading.Event()

        def call_until_over() -> list[httpx.Response]:
            with httpx.Client(base_url=url, timeout=30) as client:
                answers = []
                while not attacked.is_set():
                    answers.append(client.post("/recognize", files={"file": EXAMPLE.read_bytes()}))
                return answers

        callers = [pool.submit(call_until_over) for _ in range(3)]
        found = {}
        with httpx.Client(base_url=url, timeout=30) as client:
            for name, (body, _) in uploads.items():
                response = client.post("/recognize", content=body, headers={"Content-Type": "audio/wav"})
                found[name] = response.status_code
                assert response.headers["content-type"] == "application/problem+json"
        attacked.set()
        answers = [answer for caller in callers for answer in caller.result(timeout=30)]
        assert found == {name: status for name, (_, status) in uploads.items()}
        assert len(answers) > 3
        for answer in answers:
            assert answer.status_code == 200
            assert answer.json()["scores"] == good
        assert resident_bytes(process) - before < 200 * 2**20


def test_a_burst_of_ten_times_the_capacity_is_refused_without_leaks() -> None:
    with (
        serving("--max-in-flight", "4", "--caller-share", "1") as (_, url),
        concurrent.futures.ThreadPoolExecutor(40) as pool,
    ):
        before = post(url).json()["scores"]
        answers = [answer.result(timeout=30) for answer in [pool.submit(post, url) for _ in range(40)]]
        served = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(served) + len(refused) == 40
        assert len(served) >= 4
        assert refused
        for answer in served:
            assert answer.json()["scores"] == before
        for answer in refused:
            assert answer.json()["code"] == "queue_full"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert post(url).json()["scores"] == before
        assert "ser_queue_depth 0.0" in httpx.get(f"{url}/metrics").text


def test_a_second_signal_stops_at_once() -> None:
    head = "POST /recognize HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: stalled\r\nContent-Type: audio/wav\r\n"
    with serving("--body-idle-timeout", "60") as (process, url), httpx.Client(base_url=url) as watch:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stalled:
            stalled.sendall(f"{head}Content-Length: 99999\r\n\r\nRIFF".encode())
            while state(watch, "stalled") != "receiving":
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            while watch.get("/readyz").status_code != 503:
                time.sleep(0.01)
            assert process.poll() is None, "the upload under way is waited for"
            process.send_signal(signal.SIGINT)
            process.wait(20)


def test_a_second_signal_does_not_wait_for_decoders_that_have_stopped() -> None:
    compressed = encode("mp3", speech(), 16_000)

    def ask(request_id: str) -> int:
        headers = {"X-Request-ID": request_id, "Content-Type": "audio/mpeg"}
        return httpx.post(f"{url}/recognize", content=compressed, headers=headers, timeout=30).status_code

    with (
        serving() as (process, url),
        httpx.Client(base_url=url) as watch,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        assert ask("first") == 200
        for decoder in children(process.pid):
            os.kill(decoder, signal.SIGSTOP)
        pool.submit(ask, "decoding")
        while state(watch, "decoding") != "decoding":
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while watch.get("/readyz").status_code != 503:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(5)  # before they are noticed otherwise


def test_sighup_drains_as_sigterm_does() -> None:
    """The second one comes from the shell, when a terminal is closed."""
    head = "POST /recognize HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: slow\r\nContent-Type: audio/wav\r\n"
    body = EXAMPLE.read_bytes()
    with serving("--body-idle-timeout", "60") as (process, url), httpx.Client(base_url=url) as watch:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
            while state(watch, "slow") != "receiving":
                time.sleep(0.01)
            process.send_signal(signal.SIGHUP)
            while watch.get("/readyz").status_code != 503:
                time.sleep(0.01)
            process.send_signal(signal.SIGHUP)
            slow.sendall(body[100:])
            assert slow.recv(15) == b"HTTP/1.1 200 OK"
        assert process.wait(20) == 0


def test_nohup_keeps_the_service_running() -> None:
    with serving(command=["nohup", *COMMAND]) as (process, url):
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/readyz").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_directory_for_temporary_files_that_cannot_be_written_is_told_at_start(tmp_path: Path) -> None:
    program = (
        "import sys, tempfile; tempfile.tempdir = sys.argv.pop(1);"
        "from service.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "absent"), *COMMAND[3:]]
    log = tmp_path / "log"
    with log.open("w") as stderr, serving(command=command, stderr=stderr) as (_, url):
        assert "absent" in re.search(r"temporary files cannot be written: .*", log.read_text())[0]  # type: ignore[index]
        assert httpx.get(f"{url}/readyz").json()["code"] == "storage_unwritable"


def test_a_port_in_use_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = subprocess.run([*COMMAND[:-1], port], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "address already in use" in run.stderr


def test_a_model_that_cannot_be_opened_exits_the_process(tmp_path: Path) -> None:
    flags = ["--dtype", "fp16", "--backend", "onnx", "--cache-dir", str(tmp_path)]
    run = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode != 0
    assert "fp16" in run.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_formats(log_format: str) -> None:
    with serving("--log-format", log_format) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    lines = errors.splitlines()
    assert lines
    if log_format == "json":
        assert all("message" in json.loads(line) for line in lines)
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in lines)


def test_keys_limits_and_trusted_proxies_in_a_server_process(tmp_path: Path) -> None:
    key, another = "0123456789abcdef-first", "0123456789abcdef-second"
    (tmp_path / "keys").write_text(another)
    flags = ["--api-keys-file", str(tmp_path / "keys"), "--max-header-bytes", "4096", "--log-level", "debug"]
    with serving(*flags, env={**os.environ, "SER_API_KEYS": key}) as (process, url):
        assert process.stdout is not None
        process.stdout.readline()
        assert "curl -H 'X-API-Key: YOUR-KEY' -F file=@" in process.stdout.readline()
        refused = post(url)
        assert (refused.status_code, refused.json()["code"]) == (401, "key_missing")
        assert httpx.get(f"{url}/models", headers={"X-API-Key": key}).status_code == 200
        assert httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {another}"}).status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200
        too_large = httpx.get(f"{url}/readyz", headers={"X-Long": "x" * 5000})
        assert (too_large.status_code, too_large.json()["code"]) == (431, "headers_too_large")
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=10)
    assert key not in out + errors
    assert another not in out + errors


@pytest.mark.parametrize("trusted", ["192.0.2.0/24", "127.0.0.1"])
def test_client_addresses_come_from_trusted_proxies_only(trusted: str) -> None:
    flags = ["--rate-limit", "1", "--rate-burst", "1", "--trusted-proxies", trusted]
    with serving(*flags) as (_, url), httpx.Client(base_url=url) as client:
        # The last address was added by the proxy, the others were sent by the client.
        forwarded = [f"192.0.2.200, 198.51.100.{host}" for host in range(3)]
        statuses = [client.get("/models", headers={"X-Forwarded-For": text}).status_code for text in forwarded]
        assert statuses == ([200, 200, 200] if trusted == "127.0.0.1" else [200, 429, 429])
        again = client.get("/models", headers={"X-Forwarded-For": "1.2.3.4, 198.51.100.0"})
        assert again.status_code == 429


def test_listening_on_all_addresses_without_keys_is_warned_of() -> None:
    def warnings(*flags: str) -> list[str]:
        with serving(*flags) as (process, _):
            process.send_signal(signal.SIGTERM)
            return [line for line in process.communicate(timeout=10)[1].splitlines() if "WARNING" in line]

    (warning,) = warnings("--host", "0.0.0.0")
    assert "anyone who can reach 0.0.0.0 may call" in warning
    assert warnings() == []


def test_a_proxy_may_remove_the_prefix_or_pass_it_on() -> None:
    with serving("--root-path", "/emotion") as (_, url):
        assert url.endswith("/emotion")
        assert post(url).status_code == 200
        assert post(url.removesuffix("/emotion")).status_code == 200
        assert httpx.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/emotion"}]
