"""The pictures of the page in the README, in docs/images: `python -m tests.page.screenshots`."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import FilePayload, Page

from tests.page.browser import chromium, new_context, page_in
from tests.page.stored_answers import MODEL_FLAGS, SERVICE
from tests.test_server import serving

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
_HEIGHT = 1000
_FILES: list[FilePayload] = [
    {"name": name, "mimeType": "audio/wav", "buffer": (SERVICE / "examples" / name).read_bytes()}
    for name in ("angry.flac", "sad.flac", "happy.wav", "neutral.flac")
]
_NO_AUDIO: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Call Mrs Meier back.\n"}


def start(page: Page) -> None:
    """Nothing has been asked yet."""


def result(page: Page) -> None:
    """One file with its scores over time; the pointer reads a moment."""
    page.set_input_files("#files", _FILES[2])
    page.wait_for_selector("#player[data-ready]")
    page.wait_for_selector("#timeline canvas")
    page.hover("#timeline", position={"x": 300, "y": 60})


def several(page: Page) -> None:
    """Several files, one of which is no audio."""
    page.set_input_files("#files", [*_FILES, _NO_AUDIO])
    page.wait_for_selector("#rows td.failed")
    page.wait_for_selector("#rows tr:nth-child(4) .emoji")
    page.wait_for_selector("#player[data-ready]")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with serving(*MODEL_FLAGS) as (_, url), chromium() as browser:
        for name, show, looks in (
            ("page-start", start, {}),
            ("page-result", result, {}),
            ("page-files", several, {"locale": "zh-CN", "color_scheme": "dark"}),
        ):
            context = new_context(browser, **{"viewport": {"width": 1280, "height": _HEIGHT}, **looks})
            with page_in(context, url, statuses=True) as page:
                page.wait_for_selector("#model:not([hidden])")
                show(page)
                page.screenshot(path=IMAGES / f"{name}.png", full_page=show is result, animations="disabled")
            context.close()


if __name__ == "__main__":
    main()
