"""Columns of parquet files, by pyarrow; a file that cannot be read is one line that says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosmos_worker.data.video.decoding import read_through
from cosmos_worker.errors import DataError

AGAIN = "fetch the dataset again"


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """The file, opened; errors of it and of what is done with it name the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{name}: no such file; {AGAIN}")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        read_through(path)
        raise DataError(
            f"{name}: cannot be read as parquet ({' '.join(str(error).split())[:200]}); {AGAIN}"
        ) from None


def column_names(path: Path, name: str) -> list[str]:
    """Names of all columns; arguments and errors as of :func:`read_columns`."""
    with _opened(path, name) as file:
        return list(file.schema_arrow.names)


def read_columns(path: Path, name: str, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a parquet file; those that it lacks are left out.

    Args:
        path: the file.
        name: how messages call it.
        wanted: names of columns.

    Raises:
        DataError: no such file, or it is damaged.
        OSError: the volume does not give its content.
    """
    with _opened(path, name) as file:
        names = [column for column in wanted if column in file.schema_arrow.names]
        table = file.read(columns=names)
        return {column: table.column(column).to_pylist() for column in names}
