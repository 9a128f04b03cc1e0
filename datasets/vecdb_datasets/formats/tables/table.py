"""TableSource: what Parquet, Arrow, CSV and JSON share. A table has a vector column, maybe an id column, and fields.

Reads are remembered one window deep, so that `source[a:b]`, `ids(a, b)` and `fields(a, b)` of one chunk parse the
file once. A row that cannot be read is zeros in the window, and told beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb import InvalidArgument, VecdbError

from ..source import Array, VectorSource
from .spelled import CUT


@dataclass(frozen=True, slots=True)
class Window:
    """Rows [start, start + len(vectors)) of a table, parsed. bad : rows that cannot be read, and why."""

    start: int
    vectors: Array
    ids: list[Any] | None
    fields: list[dict[str, Any]] | None
    bad: dict[int, VecdbError] = field(default_factory=dict)
    owners: list[str] | None = None
    tenants: list[list[str]] | None = None
    without_vectors: list[bool] | None = None

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
        Every other column, in file order (JSONL: in order of appearance in any row).
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

    def _broken(self, start: int, stop: int) -> dict[int, VecdbError]:
        return {row: error for row, error in self._at(start, stop).bad.items() if start <= row < stop}

    def _column(self, name: str, start: int, stop: int | None) -> Any:
        """The part of a window that belongs to these rows."""
        low, high = self._bounds(start, stop)
        if low == high:
            return []
        held = self._at(low, high)
        self._require(low, high)
        values = getattr(held, name)
        return None if values is None else values[low - held.start : high - held.start]

    @property
    def has_ids(self) -> bool:
        return self.id_column is not None

    def ids(self, start: int = 0, stop: int | None = None) -> list[int] | list[str] | None:
        return None if self.id_column is None else self._column("ids", start, stop)

    def fields(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]] | None:
        return self._column("fields", start, stop) if self.field_columns or self.facts is not None else None

    def owners(self, start: int = 0, stop: int | None = None) -> list[str] | None:
        return None if self.facts is None else self._column("owners", start, stop)

    def tenants(self, start: int = 0, stop: int | None = None) -> list[list[str]] | None:
        return None if self.facts is None else self._column("tenants", start, stop)

    def without_vectors(self, start: int = 0, stop: int | None = None) -> list[bool] | None:
        return None if self.facts is None else self._column("without_vectors", start, stop)

    def _row_error(self, row: int, line: int | None, what: str) -> VecdbError:
        """An error about a row. what : begins with a space or a colon, for it follows the row's number."""
        where = "" if line is None else f"line {line}: "
        return InvalidArgument(f"{self.path}: {where}row {row}{what}")


def stack_rows(rows: Sequence[Any], dim: int, dtype: Any = np.float32) -> tuple[Array, dict[int, str]]:
    """Parsed lists of numbers -> dtype[len(rows), dim], and what is wrong by position."""
    out = np.zeros((len(rows), dim), dtype)
    wrong: dict[int, str] = {}
    for i, values in enumerate(rows):
        if not isinstance(values, (list, np.ndarray)):
            wrong[i] = f": vector is {type(values).__name__}, expected {dim} numbers"
        elif len(values) != dim:
            wrong[i] = f" has dim {len(values)}, expected {dim} as in row 0"
        else:
            try:
                out[i] = values
                continue
            except (TypeError, ValueError, OverflowError) as error:
                out[i] = 0
                wrong[i] = f": vector holds something that is no number ({error})"
        if isinstance(values, list) and CUT in values:
            wrong[i] = (
                f": the vector is cut by '{CUT}', as numpy prints long arrays: only {len(values) - 1} numbers are "
                "there; write all of them, such as json.dumps(vector.tolist())"
            )
    return out, wrong
