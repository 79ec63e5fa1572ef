"""Chromium for tests, and the check that a page logs no error and requests nothing from other hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, sync_playwright

from service.data import EXAMPLES

TIMEOUT_MS = 30_000
"""Milliseconds to wait for an expected change before a test fails."""

INSECURE_HOST = "host.test"
"""A name of this machine that is not a secure context for the browser, unlike localhost."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",  # grants the microphone without a dialog
    f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
    f"--use-file-for-fake-audio-capture={EXAMPLES / 'happy.wav'}",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile.

    If Chromium is not installed, the test is skipped, or fails with `CI_TOOLS=require`.
    """
    path = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if path is None:
        reason = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI_TOOLS") == "require":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """The console messages and requests of a page.

    Attributes:
        errors: console messages of level `error` or `warning`, and uncaught exceptions.
        statuses: whether the test expects error statuses, which the browser logs as errors.
        requests: all URLs requested by the page.
    """

    statuses: bool = False
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def follow(self, page: Page) -> Iterator[None]:
        """Record messages and requests of `page` inside the `with` block."""
        events: tuple[tuple[Any, Callable[[Any], None]], ...] = (
            ("console", self._on_console),
            ("pageerror", self._on_error),
            ("request", self._on_request),
        )
        for event, note in events:
            page.on(event, note)
        try:
            yield
        finally:
            for event, note in events:
                page.remove_listener(event, note)

    def assert_clean(self, origin: str) -> None:
        """Assert that the console has no error and that all requests went to `origin`."""
        assert self.errors == []
        elsewhere = [url for url in self.requests if not url.startswith((f"{origin}/", f"blob:{origin}/", "data:"))]
        assert elsewhere == []
        assert self.requests

    def _on_console(self, message: ConsoleMessage) -> None:
        refusal = message.text.startswith(("Failed to load resource", "WebSocket connection to "))
        if message.type in ("error", "warning") and not (self.statuses and refusal):
            self.errors.append(message.text)

    def _on_error(self, error: Error) -> None:
        self.errors.append(str(error))

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A context without stored data; `options` as for `Browser.new_context`."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(TIMEOUT_MS)
    return context


@contextmanager
def page_in(context: BrowserContext, url: str, *, statuses: bool = False) -> Iterator[Page]:
    """The page of the service at `url` in a new tab, loaded, with its messages and requests checked at the end.

    Args:
        context: browser context of the tab.
        url: of the service.
        statuses: whether error statuses are expected.
    """
    with closing(context.new_page()) as tab, page_at(tab, url, statuses=statuses) as page:
        yield page


@contextmanager
def page_at(tab: Page, url: str, *, statuses: bool = False) -> Iterator[Page]:
    """Like `page_in`, in a tab that exists and stays open, which is faster."""
    watch = Watch(statuses)
    with watch.follow(tab):
        tab.mouse.move(0, 0)
        tab.goto(f"{url}/")
        tab.wait_for_selector("html[data-ready]")
        tab.wait_for_selector("#examples button >> nth=5")
        try:
            yield tab
        finally:
            tab.unroute_all()
            tab.evaluate("localStorage.clear(); sessionStorage.clear();")
    parts = urlsplit(url)
    watch.assert_clean(f"{parts.scheme}://{parts.netloc}")
