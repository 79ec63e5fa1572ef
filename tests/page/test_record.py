"""Recording with the browser's fake microphone, which repeats happy.wav."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from service.data import EXAMPLES
from tests.page.browser import INSECURE_HOST
from tests.page.conftest import OpenPage


def test_record_and_analyse(page: Page) -> None:
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#record-level")).to_have_attribute("style", re.compile(r"inset\(0px \d\d"))
    expect(page.locator("#record-time")).to_have_text(re.compile(r"0:0[1-9]\.\d"))
    page.get_by_role("button", name="Stop and analyse").click()
    expect(page.locator("#result-name")).to_have_text(re.compile(r"^Recording \d\d-\d\d-\d\d\.webm$"))
    page.locator("#answer").wait_for()
    expect(page.locator("#details")).to_contain_text("48000 Hz")
    page.locator("#player[data-ready]").wait_for()
    expect(page.locator("#player-notice")).to_be_hidden()
    expect(page.get_by_role("button", name="Record")).to_be_focused()


def test_a_recording_can_be_discarded(page: Page) -> None:
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Discard").click()
    expect(page.get_by_role("button", name="Record")).to_be_visible()
    expect(page.locator("#result")).to_be_hidden()


def record_with_error(page: Page, error: str) -> None:
    page.evaluate(
        "(name) => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }", error
    )
    page.get_by_role("button", name="Record").click()


def test_recorder_explains_microphone_errors(page: Page) -> None:
    notice = page.locator("#record-notice")
    record_with_error(page, "NotAllowedError")
    expect(notice).to_contain_text("does not let this page use the microphone")
    record_with_error(page, "NotFoundError")
    expect(notice).to_have_text("No microphone was found.")
    record_with_error(page, "NotReadableError")
    expect(notice).to_contain_text("another program")
    page.get_by_role("button", name="中文").click()
    expect(notice).to_contain_text("是否有其他程序正在使用麦克风")


def test_without_https_only_the_microphone_is_disabled(open_page: OpenPage, service_url: str) -> None:
    page = open_page(service_url.replace("127.0.0.1", INSECURE_HOST))
    assert not page.evaluate("isSecureContext")
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#record-notice")).to_contain_text(f"This page came from http://{INSECURE_HOST}:")
    page.set_input_files("#files", EXAMPLES / "happy.wav")
    page.locator("#answer").wait_for()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Select the text to copy it")
    assert "curl" in page.evaluate("getSelection().toString()")


def test_code_snippet_is_copied(open_page: OpenPage) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code").inner_text()
