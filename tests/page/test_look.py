"""Languages, themes, window sizes, keyboard, and the accessibility check with axe."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from service.api.problems import STATUSES
from service.data import EXAMPLES
from service.errors import ServiceError
from tests.page.conftest import OpenPage
from tests.page.stored_answers import PAGE

CLIPS = [EXAMPLES / name for name in ("happy.wav", "sad.flac")]


def show_example(page: Page) -> None:
    page.locator("#examples button").nth(3).click()
    page.locator("#player[data-ready]").wait_for()


def show_table_with_an_error(page: Page) -> None:
    page.set_input_files("#files", [*CLIPS, Path(__file__)])
    expect(page.locator("#file-rows .failed")).to_be_visible()
    expect(page.locator("#file-rows td:nth-child(3)").nth(1)).to_have_text(re.compile("%"))
    page.locator("#file-rows button.open").last.click()
    page.locator("#failure").wait_for()


def show_live(page: Page) -> None:
    page.evaluate("for (const id of ['window', 'hop']) { document.querySelector(`#live-${id}`).value = '0.5'; }")
    page.locator("#open-live").click()
    expect(page.locator("#live-count")).to_have_text(re.compile("[1-9]"))


def show_segments(page: Page) -> None:
    page.locator("input[value=segment]").check()
    page.set_input_files("#files", CLIPS[0])
    expect(page.locator("#segments tr")).to_have_count(1)
    page.locator("#player[data-ready]").wait_for()


def show_live_and_segments(page: Page) -> None:
    show_live(page)
    show_segments(page)


def serious(page: Page) -> list[str]:
    """The serious and critical violations that axe finds, as lines."""
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
    # Names of formats, options, labels and files stay in Latin letters.
    words = set(re.findall(r"[A-Za-z]{2,}", left))
    assert words & {"Choose", "files", "Drop", "Options", "Examples", "Record", "the"} == set()


def test_both_languages_have_all_messages(page: Page) -> None:
    english, chinese = (
        page.evaluate(
            """async (language) => {
                const script = document.querySelector('script[type=module]').src;
                return (await import(new URL(`i18n/${language}.js`, script))).default;
            }""",
            language,
        )
        for language in ("en", "zh")
    )
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert text
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key
    modules = [path for path in PAGE.rglob("*.js") if path.name not in ("en.js", "zh.js")]
    used = "".join(path.read_text(encoding="utf-8") for path in (*modules, PAGE / "index.html"))
    dynamic = re.compile(r"(state|problem|details|step|live\.state)\.")
    assert [key for key in english if not dynamic.match(key) and key not in used] == []
    for key in re.findall(r'data-(?:text|label)="([^"]+)"', (PAGE / "index.html").read_text(encoding="utf-8")):
        assert key in english


def leaves(kind: type[ServiceError]) -> list[type[ServiceError]]:
    """The subclasses of `kind` that have no subclasses."""
    return [leaf for under in kind.__subclasses__() for leaf in leaves(under)] or [kind]


def test_every_error_code_has_a_message() -> None:
    english = (PAGE / "i18n" / "en.js").read_text(encoding="utf-8")
    codes = {leaf.code for kind in STATUSES if kind is not ServiceError for leaf in leaves(kind)}
    # The page never causes these; it would show their titles.
    without_message = {"malformed_request", "headers_too_large", "invalid_message", "message_too_large"}
    assert without_message < codes
    assert [code for code in sorted(codes - without_message) if f"'problem.{code}':" not in english] == []


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


def test_everything_is_reachable_by_keyboard(page: Page) -> None:
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
    assert {"record", "open-live"} <= set(tab_to("🤢\ndisgusted"))
    page.keyboard.press("Enter")
    page.locator("#player[data-ready]").wait_for()
    passed = tab_to("export-chart")
    assert {"compute", "play", "tracks", "draw-stacked", "export-result", "export-frames"} <= set(passed)
    assert {"granularity", "window", "hop", "embedding", "channels", "label_language", "trim", "code-shell"} <= set(
        tab_to("copy")
    )


def test_reduced_motion_disables_animations(open_page: OpenPage) -> None:
    page = open_page(reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].filter((e) => getComputedStyle(e).animationName !== 'none').length"
    page.evaluate("document.querySelectorAll('[hidden]').forEach((each) => { each.hidden = false; })")
    assert page.evaluate(moving) == 0
