"""Converts rows of JSON to a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from service.extras import extra
from service.folders.journal import read_rows

_GROUP_BYTES = 4 * 1024 * 1024
"""Bytes of JSON in one row group, all of which is in memory at a time."""

_SINGLE_PRECISION = frozenset({"score", "scores", "embedding"})
"""Columns that the model computes in single precision."""


def check_pyarrow() -> None:
    """Check that Parquet can be written, before a run that may take hours.

    Raises:
        MissingExtra: if pyarrow is not installed.
    """
    with extra("parquet", "Parquet needs"):
        import pyarrow.parquet  # noqa: F401


def write_parquet(journal: Path, path: Path, parameters: Mapping[str, Any]) -> None:
    """Convert a journal to a Parquet file. The file is replaced at once: readers never see a part of it.

    The schema has the columns of all rows; a row is null in the columns that it lacks.

    Args:
        journal: the file of rows.
        path: the file to write.
        parameters: those of the run; stored in the metadata of the file.
    """
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([])
    for rows in _groups(journal):
        # Not Table.from_pylist, which uses only the columns of the first row.
        found = pyarrow.schema(list(pyarrow.array(rows).type))
        schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
    fields = [_in_single_precision(field) for field in schema]
    schema = pyarrow.schema(fields, metadata={"emotion2vec-service": orjson.dumps(parameters)})
    draft = path.with_name(path.name + ".new")
    with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        for rows in _groups(journal):
            filled = pyarrow.array(rows, type=pyarrow.struct(schema))
            writer.write_batch(pyarrow.RecordBatch.from_struct_array(filled).replace_schema_metadata(schema.metadata))
    draft.replace(path)


def _groups(journal: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for row, line in read_rows(journal):
        rows.append(row)
        size += len(line)
        if size > _GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _in_single_precision(field: Any, single: bool = False) -> Any:
    import pyarrow
    from pyarrow import types

    single = single or field.name in _SINGLE_PRECISION
    kind = field.type
    if types.is_struct(kind):
        kind = pyarrow.struct([_in_single_precision(kind.field(index), single) for index in range(kind.num_fields)])
    elif types.is_list(kind):
        kind = pyarrow.list_(_in_single_precision(kind.value_field, single))
    elif single and types.is_float64(kind):
        kind = pyarrow.float32()
    return field.with_type(kind)
