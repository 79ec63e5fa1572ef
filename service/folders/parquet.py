"""Rows as a Parquet file, for tables that are read by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from service.extras import extra
from service.folders.journal import rows_of

_GROUP_BYTES = 4 * 1024 * 1024
"""Bytes of JSON that make one row group: what is held in memory."""

_SINGLE = frozenset({"score", "scores", "embedding"})
"""What the model computes in single precision; doubles would only be larger."""


def check_pyarrow() -> None:
    """Make sure that Parquet can be written, before hours of work are to end in it.

    Raises:
        MissingExtra: if not.
    """
    with extra("parquet", "Parquet needs"):
        import pyarrow.parquet  # noqa: F401


def write_parquet(journal: Path, path: Path, asked: Mapping[str, Any]) -> None:
    """Turn rows into a Parquet file; readers see the old one or the new one, never a part.

    The schema is that of the rows: columns that only some have are null in the others.

    Args:
        journal: the rows.
        path: the file to write.
        asked: what the rows answer; kept in the file's metadata.
    """
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([])
    for rows in _groups(journal):
        # Not Table.from_pylist, which takes the first row's columns for all there are.
        found = pyarrow.schema(list(pyarrow.array(rows).type))
        schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
    fields = [_in_single_precision(field) for field in schema]
    schema = pyarrow.schema(fields, metadata={"emotion2vec-service": orjson.dumps(asked)})
    draft = path.with_name(path.name + ".new")
    with parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        for rows in _groups(journal):
            filled = pyarrow.array(rows, type=pyarrow.struct(schema))
            writer.write_batch(pyarrow.RecordBatch.from_struct_array(filled).replace_schema_metadata(schema.metadata))
    draft.replace(path)


def _groups(journal: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for row, line in rows_of(journal):
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

    single = single or field.name in _SINGLE
    kind = field.type
    if types.is_struct(kind):
        kind = pyarrow.struct([_in_single_precision(kind.field(index), single) for index in range(kind.num_fields)])
    elif types.is_list(kind):
        kind = pyarrow.list_(_in_single_precision(kind.value_field, single))
    elif single and types.is_float64(kind):
        kind = pyarrow.float32()
    return field.with_type(kind)
