"""Chromium for tests, and pages in it that are watched."""

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

from tests.page.stored_answers import SERVICE

PATIENCE = 30_000
"""Milliseconds after which something that should happen has not; machines that run tests are slow."""

INSECURE_HOST = "host.test"
"""This machine, by a name that the browser does not trust as it trusts localhost."""

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
    "--use-fake-ui-for-media-stream",  # says yes to the microphone
    f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
    f"--use-file-for-fake-audio-capture={SERVICE / 'examples' / 'happy.wav'}",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new, empty profile. Without one, tests are skipped, or fail where `CI_TOOLS=require`."""
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
    """What a page has said and asked for.

    Attributes:
        errors: messages of severity `error` or `warning` in its console, and exceptions that nothing caught.
        statuses: whether the test expects refusals, which the browser reports as errors.
        requests: every address that was asked for, by whichever part of the page.
    """

    statuses: bool = False
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def follow(self, page: Page) -> Iterator[None]:
        """Note what happens in a page meanwhile."""
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
        """The console holds no error, and nothing was asked for elsewhere."""
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
    """A browser without a past; `options` as `Browser.new_context` takes them."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE)
    return context


@contextmanager
def page_in(context: BrowserContext, url: str, *, statuses: bool = False) -> Iterator[Page]:
    """The page of the service at `url` in a tab of its own, ready for use, and watched until the end.

    Args:
        context: where to open it.
        url: of the service.
        statuses: whether refusals of the service are expected.
    """
    with closing(context.new_page()) as tab, page_at(tab, url, statuses=statuses) as page:
        yield page


@contextmanager
def page_at(tab: Page, url: str, *, statuses: bool = False) -> Iterator[Page]:
    """The same in a tab that was there before, and stays, since opening one takes longer than the page does."""
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
