"""The conversion of rows to Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.folders import parquet
from service.folders.parquet import write_parquet

pq = pytest.importorskip("pyarrow.parquet")
import pyarrow as pa  # noqa: E402

PARAMETERS = {"model": {"id": "m"}}
ROWS: list[dict[str, Any]] = [
    {
        "file": "a.wav",
        "size": 9_000_000_000,
        "modified": 1795699037.028091,
        "audio": {"duration": 3600.123456, "speech": {"start": 0.0, "end": 1.0}},
        "label": "happy",
        "score": 0.1,
        "scores": [{"label": "happy", "score": 0.1}],
        "embedding": [0.25, 1, -3e-5],
    },
    {"file": "b.wav", "size": 1, "modified": 1.0, "problem": {"code": "audio_empty", "title": "E", "detail": "D"}},
    {
        "file": "c.wav",
        "size": 1,
        "modified": 1.0,
        "audio": {"duration": 1, "speech": None},
        "label": None,
        "score": None,
        "scores": [],
        "segments": [{"start": 0.5, "end": 2.5, "label": "sad", "score": 1, "scores": []}],
    },
]


def journal(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("group_bytes", [1, 10**9])
def test_all_values_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_bytes: int) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", group_bytes)
    write_parquet(journal(tmp_path, ROWS), tmp_path / "r.parquet", PARAMETERS)
    table = pq.read_table(tmp_path / "r.parquet")
    single = [pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for value in (0.1, -3e-5)]
    expected = without_nulls(ROWS)
    expected[0] |= {"score": single[0], "scores": [{"label": "happy", "score": single[0]}]}
    expected[0]["embedding"] = [0.25, 1.0, single[1]]
    assert without_nulls(table.to_pylist()) == expected
    assert pq.ParquetFile(tmp_path / "r.parquet").num_row_groups == (3 if group_bytes == 1 else 1)


def test_scores_are_single_precision_times_are_double_and_the_parameters_are_stored(tmp_path: Path) -> None:
    write_parquet(journal(tmp_path, ROWS), tmp_path / "r.parquet", PARAMETERS)
    schema = pq.read_schema(tmp_path / "r.parquet")
    assert schema.field("score").type == pa.float32()
    assert schema.field("embedding").type.value_type == pa.float32()
    assert schema.field("scores").type.value_type.field("score").type == pa.float32()
    assert schema.field("audio").type.field("duration").type == pa.float64()
    assert schema.field("segments").type.value_type.field("start").type == pa.float64()
    assert json.loads(schema.metadata[b"emotion2vec-service"]) == PARAMETERS
    assert list(tmp_path.glob("*.new")) == []


def test_a_journal_without_rows_becomes_an_empty_table(tmp_path: Path) -> None:
    write_parquet(journal(tmp_path, []), tmp_path / "r.parquet", PARAMETERS)
    assert pq.read_table(tmp_path / "r.parquet").num_rows == 0
