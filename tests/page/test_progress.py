"""The states of a job from upload to answer, cancellation, and failures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.api.sounds import wav
from tests.inference.running import LIMITS
from tests.page.conftest import OpenPage
from tests.page.gated_service import TIMEOUT, GatedService, gated_service, wait_until
from tests.page.stored_answers import stored

StartGated = Callable[..., GatedService]
CANCELLED = "ser_requests_cancelled_total"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(2.0))
    return path


@pytest.fixture(scope="module")
def gated(browser: Browser) -> Iterator[GatedService]:
    """A service shared by the tests that do not change it."""
    with gated_service() as service:
        yield service


def test_queue_position_is_shown_until_the_answer(gated: GatedService, open_page: OpenPage, clip: Path) -> None:
    gated.post().result()  # the service then knows its speed and can estimate waiting times
    gated.control.run_gate.clear()
    gated.control.running.clear()
    others = [gated.post(seconds=1.5)]
    assert gated.control.running.wait(TIMEOUT)
    others.append(gated.post(seconds=3.0))
    wait_until(lambda: gated.count("ser_queue_depth") == 1)

    page = open_page(gated.url)
    page.set_input_files("#files", clip)
    expect(page.locator("#state")).to_have_text(re.compile(r"^Queued, 1 ahead \(3 s of audio\): about [\d.]+ s$"))
    expect(page.locator("#step-queue")).to_have_attribute("aria-current", "step")
    expect(page.locator("#step-upload")).to_have_attribute("data-reached", "past")

    gated.control.run_gate.set()
    assert [other.result().status_code for other in others] == [200, 200]
    page.locator("#answer").wait_for()
    expect(page.locator("#details")).to_contain_text("fake")


def test_cancelling_reaches_the_service(gated: GatedService, open_page: OpenPage, clip: Path) -> None:
    before = gated.count(CANCELLED)
    gated.control.run_gate.clear()
    page = open_page(gated.url)
    page.set_input_files("#files", clip)
    expect(page.locator("#state")).to_have_text("The model is running")
    expect(page.locator("#step-model")).to_have_attribute("aria-current", "step")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#failure")).to_have_text("Cancelled")
    wait_until(lambda: gated.count(CANCELLED) == before + 1)
    gated.control.run_gate.set()
    page.get_by_role("button", name="Try again").click()
    page.locator("#answer").wait_for()
    assert gated.count(CANCELLED) == before + 1


def test_cancelling_an_upload_reaches_the_service(gated: GatedService, open_page: OpenPage, tmp_path: Path) -> None:
    before = gated.count(CANCELLED)
    page = open_page(gated.url)
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    network.send("Network.emulateNetworkConditions", slow)
    (tmp_path / "long.wav").write_bytes(wav(30.0))
    page.set_input_files("#files", tmp_path / "long.wav")
    expect(page.locator("#state")).to_have_text(re.compile(r"^Uploading, [1-9]\d? % of 1\.9 MB$"))
    page.get_by_role("button", name="Cancel").click()
    wait_until(lambda: gated.count(CANCELLED) == before + 1)
    expect(page.locator("#failure")).to_have_text("Cancelled")


def test_busy_service_is_asked_again_after_retry_after(
    start_gated: StartGated, open_page: OpenPage, tmp_path: Path
) -> None:
    gated = start_gated(limits=replace(LIMITS, max_requests=1))
    gated.control.run_gate.clear()
    other = gated.post()
    wait_until(lambda: gated.count("ser_requests_in_flight") == 1)
    page = open_page(gated.url, statuses=True)
    files = [tmp_path / f"{number}.wav" for number in range(3)]
    for file in files:
        file.write_bytes(wav(0.5))
    page.set_input_files("#files", files)
    expect(page.locator("#state")).to_have_text(re.compile(r"^The service is too busy right now\. Next try in \d+ s$"))
    expect(page.locator("#file-rows .busy, #file-rows .uploading")).to_have_count(2)  # no more than two at once
    expect(page.locator("#file-rows .pending")).to_have_count(1)
    gated.control.run_gate.set()
    assert other.result().status_code == 200
    expect(page.locator("#table-summary")).to_have_text("3 of 3 done")
    expect(page.locator("#file-rows .badge, #file-rows .failed")).to_have_count(0)


def test_unreachable_service_is_reported(start_gated: StartGated, open_page: OpenPage, clip: Path) -> None:
    gated = start_gated()
    page = open_page(gated.url, statuses=True)
    expect(page.locator("#model")).to_have_text("fake · float32 · cpu")
    gated.end()
    page.set_input_files("#files", clip)
    expect(page.locator("#failure")).to_contain_text("The service cannot be reached")
    expect(page.locator("#announcement")).to_contain_text("clip.wav: The service cannot be reached")


def test_too_large_file_is_reported(start_gated: StartGated, open_page: OpenPage, tmp_path: Path) -> None:
    gated = start_gated(max_body_bytes=100_000)
    page = open_page(gated.url, statuses=True)
    (tmp_path / "long.wav").write_bytes(wav(300.0))
    page.set_input_files("#files", tmp_path / "long.wav")
    expect(page.locator("#failure")).to_contain_text("The file is too large")
    expect(page.locator("#failure")).to_contain_text("100000 bytes")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("#failure")).to_contain_text("文件超过了本服务允许的大小")


def test_undecodable_file_and_invalid_options_are_reported(open_page: OpenPage, clip: Path) -> None:
    page = open_page(statuses=True)
    page.set_input_files("#files", Path(__file__))
    expect(page.locator("#failure")).to_contain_text("This is not audio")
    page.locator("[name=window]").fill("0.001")
    page.set_input_files("#files", clip)
    expect(page.locator("#failure")).to_contain_text("does not accept these options")
    expect(page.locator("#failure")).to_contain_text("window must be at least 0.02 seconds")
    page.locator("[name=window]").fill("0.5")
    page.get_by_role("button", name="Try again").click()
    page.locator("#answer").wait_for()


def test_the_model_is_shown_as_soon_as_it_is_loaded(gated: GatedService, open_page: OpenPage) -> None:
    page = open_page(gated.url, statuses=True)
    loading_still = True

    def loading(route: Route) -> None:
        if loading_still:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"code": "model_loading"})
        else:
            route.continue_()

    page.route("**/models", loading)
    page.reload()
    expect(page.locator("#notice")).to_have_text("The model is loading. It will answer in a moment.")
    loading_still = False
    expect(page.locator("#model")).to_have_text("fake · float32 · cpu")


def require_key(page: Page, key: str) -> None:
    """Require `key` for all requests except those of the page's files."""

    def check(route: Route) -> None:
        presented = route.request.headers.get("authorization")
        if presented == f"Bearer {key}":
            route.continue_()
        else:
            code = "key_missing" if presented is None else "key_invalid"
            route.fulfill(status=401, headers={"WWW-Authenticate": "Bearer"}, json={"code": code, "detail": "No."})

    page.route(re.compile("/(models|recognize|requests/.*)$"), check)


def test_key_is_asked_for_and_kept_for_the_tab(open_page: OpenPage, clip: Path) -> None:
    page = open_page(statuses=True)
    require_key(page, "0123456789abcdef")
    page.reload()
    expect(page.locator("#notice")).to_have_text("This service requires an API key.")
    page.set_input_files("#files", clip)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("The service does not accept this key.")).to_be_visible()
    dialog.get_by_label("API key").fill("0123456789abcdef")
    dialog.get_by_role("button", name="Use this key").click()
    page.locator("#answer").wait_for()
    expect(page.locator("#model")).to_have_text("tiny · fp32 · cpu")
    expect(page.locator("#code")).to_contain_text('-H "Authorization: Bearer $API_KEY"')
    page.reload()
    expect(page.locator("#model")).to_have_text("tiny · fp32 · cpu")
    expect(page.locator("#code")).not_to_contain_text("0123456789abcdef")

    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.get_by_role("button", name="Enter a key").click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    page.set_input_files("#files", clip)
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#failure")).to_contain_text("accepts only requests with an API key")


def test_an_answer_from_a_cache_is_marked(page: Page, clip: Path) -> None:
    asked = []

    def answer(route: Route) -> None:
        asked.append(route.request.headers.get("cache-control"))
        route.fulfill(json=stored()["answers"]["happy.wav"], headers={"X-Cache": "hit"})

    page.route("**/recognize", answer)
    page.set_input_files("#files", clip)
    expect(page.locator("#cached")).to_have_text("From the cache")
    with page.expect_response("**/recognize"):
        page.get_by_role("button", name="Compute again").click()
    page.locator("#answer").wait_for()
    assert asked == [None, "no-cache"]
