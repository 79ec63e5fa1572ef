"""The bundled examples: stored answers are shown, and equal the computed ones."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.page.stored_answers import OPTIONS, computed, stored


def test_stored_and_computed_answers_agree(service_url: str) -> None:
    now, then = computed(service_url), stored()
    assert then["options"] == now["options"] == OPTIONS
    assert list(then["answers"]) == list(now["answers"])
    for name, answer in now["answers"].items():
        kept = then["answers"][name]
        assert kept["model"] == answer["model"]
        assert kept["label"] == answer["label"]
        assert kept["audio"]["speech"] == pytest.approx(answer["audio"]["speech"])
        assert [row["score"] for row in kept["scores"]] == pytest.approx(
            [row["score"] for row in answer["scores"]], abs=1e-4
        )
        assert kept["embedding"] == pytest.approx(answer["embedding"], abs=1e-3)
        rows = zip(kept["frames"].pop("scores"), answer["frames"].pop("scores"), strict=True)
        assert all(one == pytest.approx(other, abs=1e-4) for one, other in rows)
        assert kept["frames"] == answer["frames"]


def test_an_example_shows_its_stored_answer_and_computes_it_again(page: Page) -> None:
    page.get_by_role("button", name="happy").click()
    expect(page.locator("#stored")).to_have_text("Stored answer")
    expect(page.locator("#stored-hint")).to_contain_text("tiny (fp32, cpu)")
    expect(page.locator("#emotion-en")).to_have_text("happy")
    expect(page.locator("#emotion-zh")).to_have_text("开心")
    expect(page.locator("#details-untimed")).to_be_visible()
    expect(page.locator("#stages")).to_be_hidden()
    scores = page.locator("#scores li .value").all_text_contents()
    assert len(scores) == 9

    page.get_by_role("button", name="Compute it now").click()
    expect(page.get_by_role("button", name="Compute again")).to_be_visible()
    expect(page.locator("#stored")).to_be_hidden()
    expect(page.locator("#stages li")).to_have_count(4)
    expect(page.locator("#details")).to_contain_text("Real-time factor")
    assert page.locator("#scores li .value").all_text_contents() == scores


def test_default_options_are_those_of_the_stored_answers(page: Page) -> None:
    page.get_by_role("button", name="sad").click()
    page.locator("#answer").wait_for()
    expect(page.locator("#options-changed")).to_be_hidden()
    page.get_by_role("radio", name="Whole clip").check()
    expect(page.locator("#options-changed")).to_be_visible()
