"""Take the screenshots of the page for the README, in docs/images: `python -m tests.page.screenshots`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import soundfile
import soxr
from playwright.sync_api import FilePayload, Page, expect

from service.data import EXAMPLES
from tests.api.server.test_server import serving
from tests.page.browser import TIMEOUT_MS, chromium, new_context, page_in
from tests.page.stored_answers import MODEL_FLAGS

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
_HEIGHT = 1000
_CALL_RATE = 8000
_FILES: list[FilePayload] = [
    {"name": name, "mimeType": "audio/wav", "buffer": (EXAMPLES / name).read_bytes()}
    for name in ("angry.flac", "sad.flac", "happy.wav", "neutral.flac")
]
_NO_AUDIO: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Call Mrs Meier back.\n"}


def start(page: Page) -> None:
    """The page after loading."""


def result(page: Page) -> None:
    """One file with its scores over time, and the pointer on the timeline."""
    page.set_input_files("#files", _FILES[2])
    page.wait_for_selector("#player[data-ready]")
    page.wait_for_selector("#timeline canvas")
    page.hover("#timeline", position={"x": 300, "y": 60})


def call(page: Page) -> None:
    """A call on two channels, in segments, with the pointer on one of them."""
    page.locator("input[value=segment]").check()
    page.locator("[name=channels]").select_option("split")
    page.set_input_files("#files", {"name": "call.wav", "mimeType": "audio/wav", "buffer": two_channel_call()})
    page.wait_for_selector("#player[data-ready]")
    page.locator("#segments tr").nth(2).hover()


def live(page: Page) -> None:
    """A live stream of the fake microphone, which plays happy.wav."""
    page.click("#open-live")
    expect(page.locator("#live-count")).to_have_text(re.compile(r"^2\d$"), timeout=2 * TIMEOUT_MS)


def two_channel_call() -> bytes:
    """The bundled clips, alternating on two channels at 8 kHz, like a recorded call."""
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(EXAMPLES.glob("*.[fw][la][av]*"))]
    turns = [soxr.resample(clip, 16_000, _CALL_RATE) for clip in clips * 2]
    pause = _CALL_RATE // 2
    samples = np.zeros((sum(len(turn) + pause for turn in turns), 2), np.float32)
    at = 0
    for number, turn in enumerate(turns):
        samples[at : at + len(turn), number % 2] = turn
        at += len(turn) + pause
    file = io.BytesIO()
    soundfile.write(file, samples, _CALL_RATE, format="WAV", subtype="ALAW")
    return file.getvalue()


def several(page: Page) -> None:
    """Several files, one of which is not audio."""
    page.set_input_files("#files", [*_FILES, _NO_AUDIO])
    page.wait_for_selector("#file-rows td.failed")
    page.wait_for_selector("#file-rows tr:nth-child(4) .emoji")
    page.wait_for_selector("#player[data-ready]")


def main() -> None:
    expect.set_options(timeout=TIMEOUT_MS)
    IMAGES.mkdir(exist_ok=True)
    with serving(*MODEL_FLAGS) as (_, url), chromium() as browser:
        for name, show, looks in (
            ("page-start", start, {}),
            ("page-result", result, {}),
            ("page-files", several, {"locale": "zh-CN", "color_scheme": "dark"}),
            ("page-call", call, {}),
            ("page-live", live, {"permissions": ["microphone"]}),
        ):
            context = new_context(browser, **{"viewport": {"width": 1280, "height": _HEIGHT}, **looks})
            with page_in(context, url, statuses=True) as page:
                page.wait_for_selector("#model:not([hidden])")
                show(page)
                page.screenshot(
                    path=IMAGES / f"{name}.png", full_page=show in (result, call, live), animations="disabled"
                )
            context.close()


if __name__ == "__main__":
    main()
