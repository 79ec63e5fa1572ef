from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.api.server.test_server import serving
from tests.page.browser import PATIENCE, chromium, new_context, page_at, page_in
from tests.page.held import Held, held_service
from tests.page.stored_answers import MODEL_FLAGS

expect.set_options(timeout=PATIENCE)

OpenPage = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.page)


# One browser for all tests here, and no longer: while it runs, no other event loop can in this thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="package")
def service_url() -> Iterator[str]:
    """The real service, with the embedded model."""
    with serving(*MODEL_FLAGS) as (_, url):
        yield url


@pytest.fixture(scope="package")
def usual_context(browser: Browser) -> Iterator[BrowserContext]:
    """Keeps the page's files from test to test, as browsers do."""
    with closing(new_context(browser)) as context:
        yield context


@pytest.fixture(scope="package")
def usual_tab(usual_context: BrowserContext) -> Page:
    """Where the page of the real service is opened, unless a test asks for something unusual."""
    return usual_context.new_page()


@pytest.fixture
def open_page(browser: Browser, usual_tab: Page, service_url: str) -> Iterator[OpenPage]:
    """Opens the page of the real service or another one; at the end nothing may have been wrong."""
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
def hold(browser: Browser) -> Iterator[Callable[..., Held]]:
    """Starts services whose model holds its clips until it is told to go on."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Held:
            context: AbstractContextManager[Held] = held_service(**settings)
            return stack.enter_context(context)

        yield start
