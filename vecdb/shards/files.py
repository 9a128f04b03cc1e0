"""Files of vectors as the rows of a cluster: read in parts, each by whoever is to read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb import validate
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.schema import CollectionConfig, IndexConfig
from vecdb.shards.rows import RecordRows

PART_ROWS = 65_536
_DTYPES = {"float64": "float32"}


@dataclass(frozen=True, slots=True)
class Files:
    """Parquet, npy and all that `vecdb import` reads, at paths that every worker reaches. paths : or patterns."""

    paths: tuple[str, ...]
    id_column: str | None = None
    vector_column: str | None = None

    def open(self) -> Any:
        try:
            from vecdb_datasets import open_vectors
        except ImportError as error:
            raise VecdbError(f"reading files needs {error.name}: pip install 'vecdb-engine[data]'") from None
        return open_vectors(list(self.paths), id_column=self.id_column, vector_column=self.vector_column)

    def parts(self, rows: int = PART_ROWS) -> list[tuple[int, int]]:
        """(first row, one past the last) of each part."""
        with self.open() as source:
            return [(first, min(len(source), first + rows)) for first in range(0, len(source), rows)]

    def read(self, start: int, stop: int) -> RecordRows:
        """Rows [start, stop). Rows without an id have their number."""
        with self.open() as source:
            ids: Any = source.ids(start, stop)
            if ids is None:
                ids = np.arange(start, stop)
            elif len(ids) and not isinstance(ids[0], str):
                ids = np.array(ids, np.int64)
            bare = source.without_vectors(start, stop)
            tells = source.facts is not None and source.facts.tenants is not None
            return RecordRows(
                ids,
                np.array(source[start:stop]),  # a copy: a view would be of a file that is closed
                source.fields(start, stop),
                source.owners(start, stop),
                source.tenants(start, stop) if tells or source.tells_access else None,
                None if bare is None or not any(bare) else np.array(bare, bool),
            )

    def config(self, name: str, metric: str | None, index: IndexConfig | None, dtype: str | None) -> CollectionConfig:
        """The collection for these files: as the arguments say, otherwise as the file says. Raises InvalidArgument."""
        with self.open() as source:
            facts = source.facts
            found = _DTYPES.get(str(source.dtype), str(source.dtype))
            dtype = dtype or (facts.dtype if facts is not None else found)
            metric = metric or (facts.metric if facts is not None else source.metric) or "cosine"
            index = facts.index if index is None and facts is not None else index
            return validate.collection_config(name, source.dim, metric, index, dtype)

    def vectors(self, rows: int) -> Iterator[Any]:
        """[<= rows, dim] in order: queries."""
        with self.open() as source:
            for start in range(0, len(source), rows):
                yield np.array(source[start : start + rows])


def as_files(source: Any, id_column: str | None, vector_column: str | None) -> Files:
    """Raises InvalidArgument for what can be no paths."""
    paths = [source] if isinstance(source, str) or hasattr(source, "__fspath__") else source
    try:
        found = tuple(str(one.__fspath__() if hasattr(one, "__fspath__") else one) for one in paths)
    except TypeError:
        found = ()
    if not found or not all(isinstance(one, str) or hasattr(one, "__fspath__") for one in paths):
        raise InvalidArgument(f"give paths of files, or a Ray Dataset, got {validate.short_repr(source)}")
    return Files(found, id_column, vector_column)
