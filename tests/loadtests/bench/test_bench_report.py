from pathlib import Path

import pytest

from loadtests.bench import bench_report
from loadtests.bench.tables import Goal, Report, Row, Table


def example() -> Report:
    rows = [
        Row("utterance-5", "utterance of 5 s", "s", {"funasr": [0.9, 1.0, 1.1], "fp32": [0.6, 0.5, 0.05]}),
        Row("short", "short", "s", {"funasr": [0.0912], "fp32": [0.0456]}),
        Row("memory", "memory", "MB", {"funasr": [2345.6]}),
    ]
    table = Table("main", "Against FunASR", {"funasr": "FunASR", "fp32": "FP32"}, {"fp32": "funasr"}, rows)
    goals = [Goal("fast", 1.5, 2.0, at_least=True), Goal("small", 2.0, 2.5, at_least=False), Goal("x", 1, None, True)]
    return Report({"date": "2026-11-23", "CPU": "some, 2 cores"}, [table], goals)


def test_markdown() -> None:
    lines = bench_report.markdown(example()).splitlines()
    assert "- CPU: some, 2 cores" in lines
    assert "|  | FunASR | FP32 | ratio |" in lines
    assert "| utterance of 5 s | 1.00 s (0.900–1.10) | 0.500 s (0.0500–0.600) | 2.00 (1.50–22.0) |" in lines
    assert "| short | 91.2 ms | 45.6 ms | 2.00 |" in lines
    assert "| memory | 2,346 MB |  |  |" in lines
    assert "| fast | ≥ 1.50 | 2.00 | met |" in lines
    assert "| small | ≤ 2.00 | 2.50 | **missed** |" in lines
    assert "| x | ≥ 1.00 | not measured |  |" in lines


def test_a_saved_report_reads_back_as_it_was(tmp_path: Path) -> None:
    bench_report.save(example(), tmp_path / "bench.json")
    assert bench_report.load(tmp_path / "bench.json") == example()


def test_documents_get_the_parts_that_their_marks_list() -> None:
    document = "a\n<!-- bench: header main -->\nold\n<!-- end of bench -->\nb <!-- end of bench -->\n"
    text = bench_report.insert(example(), document)
    assert text.startswith("a\n<!-- bench: header main -->\n- date: 2026-11-23\n")
    assert text.endswith("|  |  |\n<!-- end of bench -->\nb <!-- end of bench -->\n")
    assert "old" not in text
    assert "**missed**" not in text
    assert bench_report.insert(example(), text) == text


def test_documents_without_marks_or_with_unknown_parts_are_errors() -> None:
    with pytest.raises(ValueError, match="no line"):
        bench_report.insert(example(), "text")
    with pytest.raises(ValueError, match="no part 'other'"):
        bench_report.insert(example(), "<!-- bench: other -->\n<!-- end of bench -->")


def test_the_command_rewrites_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_report.save(example(), tmp_path / "bench.json")
    document = tmp_path / "README.md"
    document.write_text("<!-- bench: goals -->\n<!-- end of bench -->\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path / "bench.json"), str(document)])
    bench_report.main()
    assert "| fast | ≥ 1.50 | 2.00 | met |" in document.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (2.4e-7, "2.4e-07"),
        (0.00724, "0.00724"),
        (0.123456, "0.123"),
        (1.0, "1.00"),
        (9.876, "9.88"),
        (15.34, "15.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    row = Row("k", "n", "", {"a": [value]})
    table = Table("t", "T", {"a": "A"}, {}, [row])
    assert f"| n | {text} |" in bench_report.part(Report({}, [table]), "t")
