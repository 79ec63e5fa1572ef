"""Segments: while they arrive, as lanes, as a table, and as downloads."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, expect

from service.data import EXAMPLES
from service.results import Floats
from tests.page.conftest import OpenPage
from tests.page.gated_service import GatedService
from tests.page.stored_answers import stored
from tests.page.test_timeline import colours
from tests.page.test_upload import download

RATE = 16_000
SCORES = [{"label": "happy", "score": 0.75}, {"label": "sad", "score": 0.25}]
MODEL = stored()["answers"]["happy.wav"]["model"]

Lines = list[dict[str, Any]]


def clip(name: str) -> Floats:
    samples: Floats = soundfile.read(EXAMPLES / name, dtype="float32")[0]
    return samples


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Happy speech on channel 0, then sad speech on channel 1, then angry speech on channel 0."""
    pause = np.zeros(RATE, np.float32)
    parts = [clip("happy.wav"), pause, clip("sad.flac"), pause, clip("angry.flac"), pause]
    both = np.zeros((sum(map(len, parts)), 2), np.float32)
    at = 0
    for part, channel in zip(parts, (0, 0, 1, 1, 0, 0), strict=True):
        both[at : at + len(part), channel] = part
        at += len(part)
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, both, RATE)
    return path


def ask_for_segments(page: Page, *, split: bool = False) -> None:
    page.get_by_role("radio", name="Segments").check()
    if split:
        page.get_by_label("Channels").select_option("Each separately")


def answer_lines(*lines: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def segment(start: float, end: float, **more: Any) -> dict[str, Any]:
    return {"type": "segment", "start": start, "end": end, **SCORES[0], "scores": SCORES, **more}


def test_a_call_on_two_channels(page: Page, call: Path) -> None:
    ask_for_segments(page, split=True)
    page.set_input_files("#files", call)
    page.locator("#player[data-ready]").wait_for()
    rows = page.locator("#segments tr")
    expect(rows).to_have_count(3)
    assert [row.split("\t")[2] for row in rows.all_inner_texts()] == ["0", "1", "0"]
    expect(page.locator("#channel-buttons label")).to_have_text([re.compile("Channel 0"), re.compile("Channel 1")])
    expect(page.locator("#announcement")).to_contain_text("call.wav: ")
    assert colours(page, "#lanes") > 8
    assert colours(page, "#waveform") > 3

    answer = json.loads(download(page, "result.json")[1])
    found = [each for channel in answer["channels"] for each in channel["segments"]]
    found.sort(key=lambda each: each["end"])
    name, content = download(page, "segments.csv")
    assert name == "call.segments.csv"
    written = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [(row["channel"], row["label"]) for row in written] == [
        (str(each["channel"]), each["label"]) for each in found
    ]
    assert [float(row["start"]) for row in written] == pytest.approx([each["start"] for each in found], abs=1e-6)
    assert [float(row["happy"]) for row in written] == [each["scores"][3]["score"] for each in found]
    matrix = np.load(io.BytesIO(download(page, "segments.npy")[1]))
    assert matrix.shape == (len(answer["channels"][0]["segments"]), 160)


def test_pointing_and_keys_reach_segments(page: Page, call: Path) -> None:
    ask_for_segments(page, split=True)
    page.set_input_files("#files", call)
    page.locator("#player[data-ready]").wait_for()
    heading, tracks = page.locator("#position-scores-heading"), page.locator("#tracks")
    expect(heading).to_have_text("Whole recording")
    page.locator("#segments tr").nth(1).hover()
    expect(heading).to_have_text(re.compile(r"^Channel 1, 0:0[34]\.\d – 0:0\d\.\d$"))
    values = page.locator("#position-scores .value").all_inner_texts()
    assert sum(float(text.rstrip(" %")) for text in values) == pytest.approx(100, abs=0.5)
    width = page.locator("#lanes").bounding_box()["width"]  # type: ignore[index]
    page.locator("#lanes").hover(position={"x": width * 0.1, "y": 40})
    expect(heading).to_have_text(re.compile("^Channel 0, 0:00"))
    page.locator("#lanes").hover(position={"x": width * 0.1, "y": 100})
    expect(heading).to_have_text(re.compile(r"^At 0:0"))  # no speech there on channel 1
    expect(page.locator("#position-scores .value").first).to_have_text("–")

    tracks.focus()
    page.mouse.move(0, 0)
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    expect(heading).to_have_text(re.compile(r"^Channel 0, 0:0[6-9]"))
    expect(tracks).to_have_attribute("aria-valuetext", re.compile(r"^\d+\.\d of \d+\.\d seconds: \w+, [\d.]+ %$"))
    expect(page.locator("#segments tr.selected td").first).to_have_text(re.compile(r"^0:0[6-9]"))
    page.keyboard.press("PageUp")
    expect(heading).to_have_text(re.compile("^Channel 0, 0:00"))

    page.get_by_role("button", name=re.compile("Play from")).nth(1).press("Enter")
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    assert float(tracks.get_attribute("aria-valuenow") or 0) < 1  # not updated while playing
    page.get_by_role("button", name="Pause", exact=True).click()
    assert float(tracks.get_attribute("aria-valuenow") or 0) > 3.5


class CountingGate(threading.Event):
    """A gate that lets a given number of clips pass."""

    def __init__(self) -> None:
        super().__init__()
        self.left = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set() or self.left.acquire(timeout=timeout)

    def set(self) -> None:
        super().set()
        self.left.release(1000)


def test_segments_appear_while_the_service_works(
    start_gated: Callable[..., GatedService], open_page: OpenPage, call: Path
) -> None:
    gated = start_gated()
    gate = gated.control.run_gate = CountingGate()
    page = open_page(gated.url)
    ask_for_segments(page)
    page.set_input_files("#files", call)
    rows = page.locator("#segments tr")
    for done in (1, 2):
        gate.left.release()
        expect(rows).to_have_count(done)
        expect(page.locator("#state")).to_have_text(
            re.compile(rf"^The model is running: {done} segments, up to 0:\d\d")
        )
    first = rows.first.element_handle()
    assert 0 < page.locator("#progress").evaluate("(bar) => bar.value") < 1
    expect(page.locator("#overview")).to_be_hidden()
    gate.set()
    page.locator("#overview").wait_for()
    expect(rows).to_have_count(3)
    assert first.evaluate("(row) => row.isConnected")  # existing rows are kept, so that the focus stays
    page.locator("#player[data-ready]").wait_for()
    expect(rows.first.get_by_role("button")).to_be_visible()


def test_segments_before_an_error_are_kept(page: Page, call: Path) -> None:
    start = {"type": "start", "id": "1", "model": MODEL, "audio": {"sampling_rate": 16000, "channels": 2}}
    problem = {"type": "problem", "code": "inference_failed", "title": "It failed", "status": 500, "detail": "No."}
    body = answer_lines(start, segment(0.1, 3.0), problem)
    page.route("**/recognize", lambda route: route.fulfill(body=body, content_type="application/x-ndjson"))
    ask_for_segments(page)
    page.set_input_files("#files", call)
    expect(page.locator("#failure")).to_contain_text("The model failed on this audio.")
    expect(page.locator("#segments tr")).to_have_count(1)
    assert download(page, "segments.csv")[1].decode("utf-8-sig").splitlines()[1] == "0.1,3,,happy,0.75,0.75,0.25"
    page.unroute("**/recognize")
    page.route(
        "**/recognize", lambda route: route.fulfill(body=answer_lines(start), content_type="application/x-ndjson")
    )
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#failure")).to_contain_text("The answer is incomplete: the connection ended early.")


def test_too_long_audio_can_be_analysed_in_segments(
    start_gated: Callable[..., GatedService], open_page: OpenPage, call: Path, tmp_path: Path
) -> None:
    gated = start_gated(max_utterance_duration=2.0)
    page = open_page(gated.url, statuses=True)
    page.set_input_files("#files", call)
    expect(page.locator("#failure")).to_contain_text("too long")
    page.get_by_role("button", name="Analyse in segments instead").click()
    expect(page.locator("#segments tr")).to_have_count(3)
    expect(page.get_by_role("radio", name="Segments")).to_be_checked()
    expect(page.locator("#details")).to_contain_text("Round-trip time")

    soundfile.write(tmp_path / "silence.wav", np.zeros(3 * RATE), RATE)
    page.set_input_files("#files", tmp_path / "silence.wav")
    expect(page.locator("#emotion-en")).to_have_text("no speech")
    expect(page.locator("#announcement")).to_have_text("silence.wav: no speech")
    expect(page.locator("#segments-count")).to_have_text("0 in all")
    expect(page.locator("#file-rows tr").nth(1)).to_contain_text("No speech")


def test_an_hour_is_neither_decoded_nor_drawn_in_full(page: Page, call: Path) -> None:
    audio = {"duration": 3600.0, "sampling_rate": 44100, "channels": 2, "narrow_band": True}
    audio |= {"truncated": True, "unread_bytes": 1234, "speech_seconds": 2700.0}
    lines: Lines = [{"type": "start", "id": "1", "model": MODEL, "audio": {"sampling_rate": 44100, "channels": 2}}]
    lines += [segment(2.4 * number, 2.4 * number + 2) for number in range(1200)]
    timings = {"decode": 1.0, "queue": 1.0, "preprocess": 1.0, "inference": 9.0}
    lines.append({"type": "result", "audio": audio, **SCORES[0], "scores": SCORES, "timings": timings})
    body = answer_lines(*lines)
    page.route("**/recognize", lambda route: route.fulfill(body=body, content_type="application/x-ndjson"))
    ask_for_segments(page)
    page.set_input_files("#files", call)
    expect(page.locator("#player-notice")).to_contain_text("too long to draw its waveform")
    expect(page.locator("#waveform")).to_have_class("axis-only")
    expect(page.locator("#segments tr")).to_have_count(1000)
    expect(page.locator("#segments-more")).to_have_text("And 200 more; segments.csv has all.")
    expect(page.locator("#details")).to_contain_text("Narrow")
    expect(page.locator("#details")).to_contain_text("The file ends early")
    expect(page.locator("#details")).to_contain_text("1234 bytes behind the audio")
    expect(page.locator("#clock")).to_have_text("0:00.0 / 1:00:00.0")
    page.get_by_role("button", name="Zoom in").click()
    whole, box = (page.locator(part).bounding_box() for part in ("#tracks", "#tracks-scroll"))
    assert whole
    assert box
    assert whole["width"] == pytest.approx(2 * box["width"], abs=1)
    page.locator("#segments button").nth(2).click()
    expect(page.locator("#clock")).to_have_text(re.compile(r"^0:0[4-9]\.[3-9]"))
    page.get_by_role("button", name="Pause", exact=True).click()
    assert len(download(page, "segments.csv")[1].splitlines()) == 1201


def test_code_snippets_request_json_lines(page: Page, call: Path) -> None:
    ask_for_segments(page)
    page.set_input_files("#files", call)
    page.locator("#overview").wait_for()
    answer = json.loads(download(page, "result.json")[1])
    line = page.locator("#code").inner_text()
    run = subprocess.run(["bash", "-c", line], cwd=call.parent, capture_output=True, check=True, timeout=60)
    start, *segments, result = map(json.loads, run.stdout.splitlines())
    assert (start["type"], result["type"]) == ("start", "result")
    assert [each["start"] for each in segments] == [each["start"] for each in answer["segments"]]
    page.get_by_role("radio", name="Python").check()
    python = page.locator("#code").inner_text()
    assert '"Accept": "application/x-ndjson"' in python
    compile(python, "code", "exec")
