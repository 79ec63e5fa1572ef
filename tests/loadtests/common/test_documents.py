from pathlib import Path

import pytest

from loadtests.common import documents


def test_text_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end of one -->\nb\n<!-- two -->\nkept\n<!-- end of two -->\n")
    documents.insert(page, "one", "new \\1\n")
    assert page.read_text() == (
        "a\n<!-- one -->\nnew \\1\n<!-- end of one -->\nb\n<!-- two -->\nkept\n<!-- end of two -->\n"
    )


@pytest.mark.parametrize("text", ["", "<!-- one -->\n<!-- end of one -->\n" * 2])
def test_a_page_without_the_marks_is_an_error(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="places between"):
        documents.insert(page, "one", "new")
    assert page.read_text() == text


def test_tables() -> None:
    assert documents.table(("a", "b"), [("1", "x | y")]) == "| a | b |\n| --- | --- |\n| 1 | x \\| y |\n"
    assert documents.fact_list({"CPU": "some", "x": "y"}, "CPU") == "- CPU: some\n"


def test_the_documents_have_marks_for_each_command() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    for page, name in (
        ("reliability.md", "faults"),
        ("reliability.md", "soak"),
        ("capacity.md", "capacity"),
        ("capacity.md", "streams"),
        ("accuracy.md", "calls"),
    ):
        text = (docs / page).read_text(encoding="utf-8")
        assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- end of {name} -->\n") == 1
