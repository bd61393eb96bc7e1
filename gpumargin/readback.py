"""What was written, read again before it is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpumargin.errors import InternalError
from gpumargin.pack.columns import flat


def require_written(path: Path, table: pa.Table) -> None:
    """A Parquet file holds the table that it was made of, to the last bit.

    Raises:
      InternalError: GM202, it does not, or it cannot be read.
    """
    words = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    try:
        with pq.ParquetFile(path, read_dictionary=words, page_checksum_verification=True) as file:
            found = file.read()
    except (OSError, pa.ArrowException) as error:
        raise _wrong(path, f"cannot be read: {' '.join(str(error).split())}") from error
    if found.num_rows != table.num_rows:
        raise _wrong(path, f"has {found.num_rows:,} rows, {table.num_rows:,} were written")
    for name in table.column_names:
        if not _is_same(flat(table[name]), flat(found[name])):
            raise _wrong(path, f"holds other values of {name} than were written")


def _is_same(written: pa.Array, found: pa.Array) -> bool:
    """Whether two columns are equal; NaN equals itself if it has the same bits."""
    if pa.types.is_floating(written.type):
        return bool(np.array_equal(_bits(written), _bits(found)) and written.is_valid().equals(found.is_valid()))
    if pa.types.is_dictionary(written.type):
        return bool(written.dictionary_decode().equals(found.dictionary_decode()))
    return bool(written.equals(found))


def _bits(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(column, 0.0)).view(np.uint64)


def _wrong(path: Path, what: str) -> InternalError:
    return InternalError(f"GM202: {path.parent.name}/{path.name} {what}; nothing was published")
