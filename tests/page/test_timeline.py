"""Scores over time: reading, playing and moving with pointer and keyboard."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.page.gated_service import wait_until

SECONDS = re.compile(r"[\d.]+")


@pytest.fixture
def shown(page: Page) -> Page:
    """An example with its timeline drawn and its audio decoded."""
    page.get_by_role("button", name="happy").click()
    page.locator("#player[data-ready]").wait_for()
    page.locator("#timeline canvas").wait_for()
    return page


def colours(page: Page, canvas: str) -> int:
    """The number of colours on a canvas."""
    count: int = page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector);
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }""",
        canvas,
    )
    return count


def test_pointing_reads_the_scores(shown: Page) -> None:
    assert colours(shown, "#waveform") > 5
    assert colours(shown, "#timeline canvas") > 5
    whole = shown.locator("#position-scores .value").all_inner_texts()
    expect(shown.locator("#position-scores-heading")).to_have_text("Whole clip")
    box = shown.locator("#timeline").bounding_box()
    assert box
    shown.locator("#timeline").hover(position={"x": box["width"] / 5, "y": 40})
    expect(shown.locator("#position-scores-heading")).to_contain_text("At 0.6")
    there = shown.locator("#position-scores .value").all_inner_texts()
    assert there != whole
    assert sum(float(text.rstrip(" %")) for text in there) == pytest.approx(100, abs=0.5)
    shown.locator("#waveform").hover(position={"x": box["width"] / 2, "y": 40})
    expect(shown.locator("#position-scores-heading")).to_contain_text("At 1.5")
    shown.get_by_role("heading", level=1).hover()
    expect(shown.locator("#position-scores-heading")).to_have_text("Whole clip")


def test_a_click_plays_from_there(shown: Page) -> None:
    box = shown.locator("#timeline").bounding_box()
    assert box
    shown.evaluate(
        """() => {
            const clock = document.querySelector('#clock');
            window.seen = [];
            new MutationObserver(() => window.seen.push(clock.textContent)).observe(clock, { childList: true });
        }"""
    )
    shown.locator("#timeline").click(position={"x": box["width"] / 2, "y": 60})
    wait_until(lambda: bool(shown.evaluate("window.seen.length > 1 && window.seen.at(-1) === '0:00.0 / 0:03.1'")))
    expect(shown.get_by_role("button", name="Play", exact=True)).to_be_visible()
    *played, end = shown.evaluate("seen")
    assert end == "0:00.0 / 0:03.1"
    assert [text for text in played if not re.fullmatch(r"0:0(1\.[5-9]|[23]\.\d) / 0:03\.1", text)] == []


def test_keys_move_and_play(shown: Page) -> None:
    tracks = shown.get_by_role("slider", name="Position in the audio")
    tracks.focus()
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowRight")
    expect(tracks).to_have_attribute("aria-valuenow", "0.20")
    expect(tracks).to_have_attribute("aria-valuetext", re.compile(r"^0\.2 of 3\.1 seconds: \w+, [\d.]+ %$"))
    shown.keyboard.press("End")
    expect(tracks).to_have_attribute("aria-valuenow", "3.10")
    shown.keyboard.press("Home")
    expect(tracks).to_have_attribute("aria-valuenow", "0.00")
    shown.keyboard.press("Space")
    expect(shown.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    shown.keyboard.press("Space")
    expect(shown.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_interval_table(shown: Page) -> None:
    shown.get_by_text("As a table").click()
    rows = shown.locator("#emotion-intervals tr")
    expect(rows.first).to_contain_text("happy")
    cells = [SECONDS.findall(row) for row in rows.all_inner_texts()]
    assert float(cells[0][0]) == pytest.approx(0.03)
    assert float(cells[-1][1]) == pytest.approx(3.1, abs=0.15)
    assert [row[1] for row in cells[:-1]] == [row[0] for row in cells[1:]]
    shown.get_by_role("button", name=re.compile("Play from")).first.click()
    expect(shown.get_by_role("button", name="Pause", exact=True)).to_be_visible()


def test_chart_type(shown: Page) -> None:
    def drawn() -> str | None:
        picture: str | None = shown.evaluate("document.querySelector('#timeline canvas')?.toDataURL()")
        return picture

    stacked = drawn()
    shown.get_by_role("radio", name="Lines").check()
    wait_until(lambda: drawn() not in (stacked, None))
    assert colours(shown, "#timeline canvas") > 5
    shown.get_by_role("radio", name="Stacked").check()
    wait_until(lambda: drawn() == stacked)
