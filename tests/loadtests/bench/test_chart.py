from pathlib import Path

import pytest

from loadtests.bench.tables import Row, Table

pytest.importorskip("matplotlib", reason="needs the extra [bench]")


def test_a_chart_is_written(tmp_path: Path) -> None:
    from loadtests.bench.chart import draw

    rows = [
        Row("a", "utterance of 5 s", "s", {"funasr": [1.0, 1.1], "fp32": [0.5, 0.6], "int8": [0.3, 0.3]}),
        Row("b", "only one column", "s", {"funasr": [1.0]}),
        Row("c", "memory", "MB", {"funasr": [2000.0], "fp32": [900.0]}),
    ]
    columns = {"funasr": "FunASR", "fp32": "FP32", "int8": "INT8"}
    draw(Table("main", "Title", columns, {"fp32": "funasr", "int8": "funasr"}, rows), "CPU", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    draw(Table("main", "Empty", columns, {}, []), "CPU", tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000
