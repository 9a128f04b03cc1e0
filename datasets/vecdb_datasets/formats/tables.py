"""TableSource: what Parquet, CSV and JSONL share. A table has a vector column, maybe an id column, and fields.

The id and vector columns are found by type and name, or given. Reads are remembered one window deep, so that
`source[a:b]`, `ids(a, b)` and `fields(a, b)` of one chunk parse the file once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb import InvalidArgument, NotFound

from .source import Array, VectorSource

VECTOR_NAMES = ("vector", "vectors", "embedding", "embeddings", "emb", "vec")
ID_NAMES = ("id", "ids", "_id", "key", "uuid")


@dataclass(frozen=True, slots=True)
class Window:
    """Rows [start, start + len(vectors)) of a table, parsed."""

    start: int
    vectors: Array
    ids: list[Any] | None
    fields: list[dict[str, Any]] | None

    @property
    def stop(self) -> int:
        return self.start + len(self.vectors)


class TableSource(VectorSource):
    """A table with a vector column.

    Attributes
    ----------
    vector_column : str
    id_column : str or None
    field_columns : list of str
        Every other column, in file order (JSONL: those of the first row).
    """

    vector_column: str
    id_column: str | None
    field_columns: list[str]
    _window: Window | None = None

    @abstractmethod
    def _parse(self, start: int, stop: int) -> Window:
        """Rows [start, stop), start < stop, from the file."""

    def _at(self, start: int, stop: int) -> Window:
        held = self._window
        if held is None or start < held.start or stop > held.stop:
            self._window = None  # free it before the next one is parsed, so that memory holds one window
            self._window = held = self._parse(start, stop)
        return held

    def _read(self, start: int, stop: int) -> Array:
        held = self._at(start, stop)
        return held.vectors[start - held.start : stop - held.start]

    def ids(self, start: int = 0, stop: int | None = None) -> list[int] | list[str] | None:
        low, high = self._bounds(start, stop)
        if self.id_column is None:
            return None
        if low == high:
            return []
        held = self._at(low, high)
        assert held.ids is not None
        return held.ids[low - held.start : high - held.start]

    def fields(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]] | None:
        low, high = self._bounds(start, stop)
        if not self.field_columns:
            return None
        if low == high:
            return []
        held = self._at(low, high)
        assert held.fields is not None
        return held.fields[low - held.start : high - held.start]


def choose_column(
    path: str, role: str, asked: str | None, candidates: Sequence[str], names: Sequence[str]
) -> str | None:
    """The column for `role`: the named one, otherwise the one with a usual name; None when there is none."""
    if asked is not None:
        if asked not in candidates:
            raise NotFound(f"{path}: no column {asked!r} that can be the {role}; columns that can: {list(candidates)}")
        return asked
    lowered = {column.lower(): column for column in reversed(candidates)}
    return next((lowered[name] for name in names if name in lowered), None)


def choose_vector_column(path: str, asked: str | None, candidates: Sequence[str]) -> str:
    """The vector column: the named one, one with a usual name, or the only one whose values are lists of numbers."""
    chosen = choose_column(path, "vector", asked, candidates, VECTOR_NAMES)
    if chosen is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen is None:
        what = f"several could be it: {list(candidates)}" if candidates else "no column holds lists of numbers"
        raise InvalidArgument(f"{path}: which column is the vector? {what}; say which with vector_column=")
    return chosen


def stack_rows(path: str, rows: Sequence[Any], dim: int, start: int) -> Array:
    """Parsed lists of numbers -> float32[len(rows), dim]; raises InvalidArgument naming the first bad row."""
    out = np.empty((len(rows), dim), np.float32)
    for i, values in enumerate(rows):
        if not isinstance(values, (list, np.ndarray)):
            raise InvalidArgument(f"{path}: row {start + i}: vector is {type(values).__name__}, expected {dim} numbers")
        if len(values) != dim:
            raise InvalidArgument(f"{path}: row {start + i} has dim {len(values)}, expected {dim} as in row 0")
        try:
            out[i] = values
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"{path}: row {start + i}: vector holds something that is no number ({error})"
            ) from error
    return out
