"""Live recognition: the browser's fake microphone, which repeats happy.wav, and the real service."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect
from websockets.sync.client import connect

from service.data import EXAMPLES
from tests.api.server.test_server import serving
from tests.page.browser import INSECURE_HOST
from tests.page.conftest import OpenPage
from tests.page.gated_service import GatedService, wait_until
from tests.page.stored_answers import MODEL_FLAGS, stored
from tests.page.test_record import record_with_error
from tests.page.test_timeline import colours
from tests.page.test_upload import download

MODEL = stored()["answers"]["happy.wav"]["model"]
SCORES = [{"label": "happy", "score": 0.75}, {"label": "sad", "score": 0.25}]
KEY = "0123456789+abcdef/~"

StartGated = Callable[..., GatedService]


def start_live(page: Page, *, window: str = "1", hop: str = "0.25") -> None:
    """Start a live stream, with shorter windows than the defaults, so that tests are short."""
    page.evaluate(
        """([window, hop]) => {
            document.querySelector('#live-window').value = window;
            document.querySelector('#live-hop').value = hop;
        }""",
        [window, hop],
    )
    page.get_by_role("button", name="Live").click()


def test_live_stream_from_microphone_to_result(page: Page) -> None:
    start_live(page)
    expect(page.locator("#live-state")).to_have_text("Listening")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_focused()
    expect(page.locator("#live-level")).to_have_attribute("style", re.compile(r"inset\(0px \d\d"))
    expect(page.locator("#live-count")).to_have_text(re.compile(r"^([4-9]|\d\d+)$"))
    expect(page.locator("#live-delay")).to_have_text(re.compile(r"^\d\.\d\d s, \d\.\d\d s at most$"))
    expect(page.locator("#live-scores li")).to_have_count(9)
    expect(page.locator("#live-announcement")).to_have_text(re.compile(r"^Now \w+, \d+\.\d %$"))
    assert colours(page, "#live-timeline") > 5

    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#live-state")).to_have_text("Ended")
    expect(page.get_by_role("button", name="Start again")).to_be_focused()
    expect(page.locator("#live-emotion-heading")).to_have_text("All utterances")
    expect(page.locator("#live-utterances li")).not_to_have_count(0)
    expect(page.locator("#live-speech")).to_have_text(re.compile(r"^\d+\.\d\d s$"))

    name, content = download(page, "live.json")
    kept = json.loads(content)
    assert re.fullmatch(r"live-\d\d-\d\d-\d\d\.json", name)
    assert (kept["window"], kept["hop"], kept["model"]["id"]) == (1.0, 0.25, "tiny")
    assert str(len(kept["windows"])) == page.locator("#live-count").inner_text()
    ends = [each["end"] for each in kept["windows"]]
    assert ends == sorted(set(ends))
    assert all((end / 0.25).is_integer() for end in ends[:-1])
    assert ends[:2] == [1.0, 1.25] or kept["skipped"]  # a busy machine may skip windows
    assert kept["duration"] == pytest.approx(kept["windows"][-1]["end"], abs=0.3)
    best = max(kept["scores"], key=lambda row: row["score"])
    assert (kept["label"], kept["score"]) == (best["label"], best["score"])
    assert page.locator("#live-emotion .in-english").text_content() == kept["label"]

    header, *rows = csv.reader(io.StringIO(download(page, "windows.csv")[1].decode("utf-8-sig")))
    assert header[:3] == ["start", "end", "angry"]
    assert [float(row[2]) for row in rows] == [each["scores"][0]["score"] for each in kept["windows"]]
    _, *rows = csv.reader(io.StringIO(download(page, "utterances.csv")[1].decode("utf-8-sig")))
    assert [row[3] for row in rows] == [each["label"] for each in kept["utterances"]]

    page.locator("#live-timeline").hover(position={"x": 5, "y": 40})
    expect(page.locator("#live-reading")).to_have_text(re.compile(r"^At 0:0\d\.\d: \w+, [\d.]+ %$"))
    page.locator("#live").get_by_role("button", name="Close").click()
    expect(page.locator("#live")).to_be_hidden()
    expect(page.get_by_role("button", name="Live")).to_be_focused()


def test_closing_the_card_ends_the_stream(start_gated: StartGated, open_page: OpenPage) -> None:
    gated = start_gated()
    page = open_page(gated.url)
    start_live(page)
    wait_until(lambda: gated.count("ser_streams") == 1)
    page.locator("#live").get_by_role("button", name="Close").click()
    wait_until(lambda: gated.count("ser_streams") == 0)


def test_stream_limit_and_shutdown_are_reported(open_page: OpenPage) -> None:
    with serving(*MODEL_FLAGS, "--max-streams", "1") as (process, url):
        page = open_page(url, statuses=True)
        notice = page.locator("#live-notice")
        with connect(f"{url.replace('http', 'ws')}/stream"):
            start_live(page)
            expect(notice).to_contain_text("refuses live streams right now")
            expect(page.locator("#live-state")).to_have_text("Not running")
        page.get_by_role("button", name="Start again").click()
        expect(page.locator("#live-count")).to_have_text(re.compile("[1-9]"))
        process.send_signal(signal.SIGTERM)
        expect(notice).to_contain_text("The service is shutting down.")
        expect(page.get_by_role("button", name="windows.csv")).to_be_visible()  # with the results received before
        process.wait(60)
        page.get_by_role("button", name="Start again").click()
        expect(notice).to_contain_text("The service cannot be reached")


def test_live_asks_for_a_key(start_gated: StartGated, open_page: OpenPage) -> None:
    gated = start_gated(api_keys=(KEY,))
    page = open_page(gated.url, statuses=True)
    start_live(page)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_role("button", name="Use this key").click()
    expect(page.locator("#live-state")).to_have_text("Listening")


def test_live_explains_microphone_errors(open_page: OpenPage, service_url: str) -> None:
    page = open_page()
    record_with_error(page, "NotAllowedError")
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#live-notice")).to_contain_text("does not let this page use the microphone")
    expect(page.get_by_role("button", name="Start again")).to_be_visible()
    expect(page.locator("#live-export")).to_be_hidden()
    insecure = open_page(service_url.replace("127.0.0.1", INSECURE_HOST))
    insecure.get_by_role("button", name="Live").click()
    expect(insecure.locator("#live-notice")).to_contain_text("only on https://")


def test_code_snippets_give_the_same_windows(page: Page, tmp_path: Path) -> None:
    record_with_error(page, "NotAllowedError")
    start_live(page, window="1.5", hop="0.5")
    clip = EXAMPLES / "happy.wav"
    page.set_input_files("#files", clip)
    expect(page.locator("#result-name")).to_have_text("happy.wav")
    line = page.locator("#code").inner_text().replace("emotion2vec-service", f"{sys.executable} -m service.cli", 1)
    page.get_by_role("radio", name="Python").check()
    lines = page.locator("#code").inner_text()
    (tmp_path / "happy.wav").write_bytes(clip.read_bytes())
    printed = [
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
        for command in (["bash", "-c", line.replace(" mic ", " happy.wav ", 1)], [sys.executable, "-c", lines])
    ]
    assert [text.count("window ") + text.count("'type': 'window'") for text in printed] == [5, 5]
    assert [text.count("result") for text in printed] == [1, 1]


def test_events_of_the_service_are_shown(open_page: OpenPage) -> None:
    """Scripted events: skipped windows, an utterance, then a result without speech, or a problem."""
    sockets: list[WebSocketRoute] = []
    started: list[dict[str, Any]] = []

    def take_message(socket: WebSocketRoute, message: str | bytes) -> None:
        if isinstance(message, str) and (content := json.loads(message))["type"] == "start":
            started.append(content)
            sockets.append(socket)
            socket.send(json.dumps({"type": "ready", "id": "1", "model": MODEL, "window": 3.0, "hop": 1.0}))

    def serve(socket: WebSocketRoute) -> None:
        socket.on_message(lambda message: take_message(socket, message))

    def say(**event: Any) -> None:
        sockets[-1].send(json.dumps(event))

    page = open_page(locale="en-GB")  # a new tab, because the route stays
    page.route_web_socket("**/stream", serve)
    page.reload()
    page.get_by_label("Labels in the answer").select_option("Chinese")
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#live-state")).to_have_text("Listening")
    assert started == [
        {
            "type": "start",
            "sampling_rate": started[0]["sampling_rate"],
            "encoding": "s16le",
            "window": 3,
            "hop": 1,
            "label_language": "zh",
        }
    ]
    scored = {"label": "开心", "score": 0.75, "scores": [{**row, "label": "开心"} for row in SCORES[:1]]}
    say(type="window", start=0.0, end=3.0, skipped=0, **scored)
    say(type="window", start=4.0, end=7.0, skipped=3, **scored)
    say(type="utterance", start=0.5, end=2.5, **scored)
    expect(page.locator("#live-skipped")).to_have_text("3")
    expect(page.locator("#live-emotion .in-english")).to_have_text("happy")
    expect(page.locator("#live-utterances li")).to_have_text(re.compile(r"^0:00\.5 – 0:02\.5.*happy"))
    say(type="result", duration=7.0, speech_seconds=0.0, label=None, score=None, scores=[])
    sockets[-1].close(code=1000)
    expect(page.locator("#live-state")).to_have_text("Ended")
    expect(page.locator("#live-emotion .in-english")).to_have_text("no speech")

    page.get_by_role("button", name="Start again").click()
    expect(page.locator("#live-state")).to_have_text("Listening")
    expect(page.locator("#live-utterances li")).to_have_count(0)
    say(type="problem", code="too_many_streams", title="Too many", status=429, detail="64 are open.", errors=[])
    sockets[-1].close(code=1013)
    expect(page.locator("#live-notice")).to_contain_text("The limit of live streams is reached.")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("#live-notice")).to_contain_text("实时连接已达服务的上限")
    expect(page.locator("#live-state")).to_have_text("未运行")
