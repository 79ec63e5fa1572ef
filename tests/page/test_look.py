"""Languages, colours, sizes, keys, and what an automatic check of accessibility finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from service.api.problems import STATUSES
from service.errors import ServiceError
from tests.page.conftest import OpenPage
from tests.page.stored_answers import SERVICE

PAGE = SERVICE / "page"
EXAMPLES = [SERVICE / "data" / "examples" / name for name in ("happy.wav", "sad.flac")]


def show_example(page: Page) -> None:
    page.locator("#examples button").nth(3).click()
    page.locator("#player[data-ready]").wait_for()


def show_table_with_an_error(page: Page) -> None:
    page.set_input_files("#files", [*EXAMPLES, Path(__file__)])
    expect(page.locator("#rows .failed")).to_be_visible()
    expect(page.locator("#rows td:nth-child(3)").nth(1)).to_have_text(re.compile("%"))
    page.locator("#rows button.open").last.click()
    page.locator("#failure").wait_for()


def show_live(page: Page) -> None:
    page.evaluate("for (const id of ['window', 'hop']) { document.querySelector(`#live-${id}`).value = '0.5'; }")
    page.locator("#listen").click()
    expect(page.locator("#live-count")).to_have_text(re.compile("[1-9]"))


def show_segments(page: Page) -> None:
    page.locator("input[value=segment]").check()
    page.set_input_files("#files", EXAMPLES[0])
    expect(page.locator("#segments tr")).to_have_count(1)
    page.locator("#player[data-ready]").wait_for()


def show_live_and_segments(page: Page) -> None:
    show_live(page)
    show_segments(page)


def serious(page: Page) -> list[str]:
    """What axe finds that is serious or critical, as lines."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:100]} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(
    ("show", "scheme"),
    [
        (show_example, "light"),
        (show_table_with_an_error, "dark"),
        (show_live_and_segments, "light"),
        pytest.param(show_live_and_segments, "dark", marks=pytest.mark.slow),
        pytest.param(show_example, "dark", marks=pytest.mark.slow),
        pytest.param(show_table_with_an_error, "light", marks=pytest.mark.slow),
    ],
)
def test_accessibility(open_page: OpenPage, scheme: str, show: Callable[[Page], None]) -> None:
    page = open_page(color_scheme=scheme, locale="zh-CN" if scheme == "dark" else "en-US", statuses=True)
    show(page)
    assert serious(page) == []
    if show is show_example:
        page.evaluate("document.querySelector('#key-dialog').showModal()")
        assert serious(page) == []


def test_both_languages(page: Page) -> None:
    show_example(page)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page).to_have_title("语音情感识别")
    expect(page.locator("#stored")).to_have_text("预存结果")
    expect(page.locator("#scores li").first).to_contain_text("开心")
    page.reload()
    expect(page.get_by_role("button", name="选择文件")).to_be_visible()
    left = page.evaluate("document.body.innerText")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    # What stays in Latin letters are names: of formats, options, labels, files.
    words = set(re.findall(r"[A-Za-z]{2,}", left))
    assert words & {"Choose", "files", "Drop", "Options", "Examples", "Record", "the"} == set()


def test_both_languages_have_all_messages(page: Page) -> None:
    english, chinese = (
        page.evaluate(
            """async (language) => {
                const script = document.querySelector('script[type=module]').src;
                return (await import(new URL(`languages/${language}.js`, script))).default;
            }""",
            language,
        )
        for language in ("en", "zh")
    )
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert text
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key
    used = "".join(path.read_text(encoding="utf-8") for path in (*PAGE.glob("*.js"), PAGE / "index.html"))
    dynamic = re.compile(r"(state|problem|facts|step|live\.state)\.")
    assert [key for key in english if not dynamic.match(key) and key not in used] == []
    for key in re.findall(r'data-(?:text|label)="([^"]+)"', (PAGE / "index.html").read_text(encoding="utf-8")):
        assert key in english


def leaves(kind: type[ServiceError]) -> list[type[ServiceError]]:
    """The classes under `kind` that are raised."""
    return [leaf for under in kind.__subclasses__() for leaf in leaves(under)] or [kind]


def test_every_error_that_a_request_may_have_is_a_sentence() -> None:
    english = (PAGE / "languages" / "en.js").read_text(encoding="utf-8")
    codes = {leaf.code for kind in STATUSES if kind is not ServiceError for leaf in leaves(kind)}
    # Only a program that is wrong gets these; the page shows their titles.
    ours = {"malformed_request", "headers_too_large", "invalid_message", "message_too_large"}
    assert ours < codes
    assert [code for code in sorted(codes - ours) if f"'problem.{code}':" not in english] == []


def test_the_theme_can_be_chosen_and_is_remembered(open_page: OpenPage) -> None:
    def background(page: Page) -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    page = open_page(color_scheme="light")
    show_example(page)
    light, wave = background(page), page.locator("#waveform").screenshot()
    page.get_by_role("button", name="Dark colours").click()
    dark = background(page)
    assert dark != light
    assert page.locator("#waveform").screenshot() != wave
    page.reload()
    expect(page.get_by_role("button", name="Light colours")).to_be_visible()
    assert background(page) == dark


@pytest.mark.parametrize("width", [360, pytest.param(768, marks=pytest.mark.slow)])
def test_nothing_is_wider_than_the_window(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 760}, statuses=True)
    sizes = "[document.documentElement.scrollWidth, innerWidth]"
    assert page.evaluate(sizes) == [width, width]
    show_example(page)
    assert page.evaluate(sizes) == [width, width]
    box = page.locator("#timeline").bounding_box()
    assert box
    assert box["width"] > 0.7 * width or width > 640
    show_table_with_an_error(page)
    assert page.evaluate(sizes) == [width, width]
    show_live_and_segments(page)
    assert page.evaluate(sizes) == [width, width]


def test_the_whole_way_by_keys(page: Page) -> None:
    def tab_to(wanted: str) -> list[str]:
        passed: list[str] = []
        while wanted not in passed:
            assert len(passed) < 60, passed
            page.keyboard.press("Tab")
            passed.append(
                page.evaluate("(({ id, name, innerText }) => id || name || innerText)(document.activeElement)")
            )
        return passed

    assert tab_to("choose")[0] == "Skip to the content"
    assert {"record", "listen"} <= set(tab_to("🤢\ndisgusted"))
    page.keyboard.press("Enter")
    page.locator("#player[data-ready]").wait_for()
    passed = tab_to("take-chart")
    assert {"compute", "play", "tracks", "draw-stacked", "take-result", "take-frames"} <= set(passed)
    assert {"granularity", "window", "hop", "embedding", "channels", "label_language", "trim", "code-shell"} <= set(
        tab_to("copy")
    )


def test_motion_is_left_out_where_it_is_not_wanted(open_page: OpenPage) -> None:
    page = open_page(reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none').length"
    page.evaluate("document.querySelectorAll('[hidden]').forEach((each) => { each.hidden = false; })")
    assert page.evaluate(moving) == 0
