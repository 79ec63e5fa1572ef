from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.api.server.test_server import serving
from tests.page.browser import INSECURE_HOST, TIMEOUT_MS, chromium, new_context, page_at, page_in
from tests.page.gated_service import GatedService, gated_service
from tests.page.stored_answers import MODEL_FLAGS

expect.set_options(timeout=TIMEOUT_MS)

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, which need a browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.page)


# One browser for the tests of this folder only: while it runs, this thread cannot run another event loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="package")
def service_url() -> Iterator[str]:
    """The real service, with the embedded model."""
    with serving(*MODEL_FLAGS, "--allowed-hosts", f"127.0.0.1,{INSECURE_HOST}") as (_, url):
        yield url


@pytest.fixture(scope="package")
def usual_context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context shared by tests, so that the page's files stay cached."""
    with closing(new_context(browser)) as context:
        yield context


@pytest.fixture(scope="package")
def usual_tab(usual_context: BrowserContext) -> Page:
    """The tab for pages of the real service with default options."""
    return usual_context.new_page()


@pytest.fixture
def open_page(browser: Browser, usual_tab: Page, service_url: str) -> Iterator[OpenPage]:
    """Opens pages, of the real service by default; at the end their messages and requests are checked."""
    with ExitStack() as stack:

        def open_one(url: str = service_url, *, statuses: bool = False, **options: Any) -> Page:
            if url == service_url and not options:
                return stack.enter_context(page_at(usual_tab, url, statuses=statuses))
            context = stack.enter_context(closing(new_context(browser, **options))) if options else usual_tab.context
            return stack.enter_context(page_in(context, url, statuses=statuses))

        yield open_one


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


@pytest.fixture
def start_gated(browser: Browser) -> Iterator[Callable[..., GatedService]]:
    """Starts services whose model waits for `control.run_gate`."""
    with ExitStack() as stack:

        def start(**settings: Any) -> GatedService:
            context: AbstractContextManager[GatedService] = gated_service(**settings)
            return stack.enter_context(context)

        yield start
