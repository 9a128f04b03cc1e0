"""CollectionSource: records of another database as rows: an id, a vector, fields, perhaps who may see them.

Threads: one.
Invariants: a row number means the same record each time that the same data are opened, which `stamp` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vecdb import InvalidArgument, VecdbError

from ..source import Array
from ..tables.arrow_rows import storable
from ..tables.columns import Choice
from ..tables.table import TableSource, Window, stack_rows


class CollectionSource(TableSource):
    """An open collection of another database. Subclasses call `_settle`, and make windows with `_made`."""

    def _settle(
        self, path: str, format: str, shape: tuple[int, int], check_finite: bool, choice: Choice, dtype: Any = "f4"
    ) -> None:
        """choice : what the caller says of columns; where new ids are asked for, the records' own become a field."""
        if choice.id not in (None, "id"):
            raise InvalidArgument(f"{path}: its records have ids: leave out id_column=, or ask for new ids")
        self.id_column = None if choice.new_ids else "id"
        self._only = None if choice.fields is None else frozenset(choice.fields)
        super().__init__(path, format, shape, dtype, check_finite)

    def fields(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] | None = self._column("fields", start, stop)
        return found

    def owners(self, start: int = 0, stop: int | None = None) -> list[str] | None:
        found: list[str] | None = self._column("owners", start, stop)
        return found

    def tenants(self, start: int = 0, stop: int | None = None) -> list[list[str]] | None:
        found: list[list[str]] | None = self._column("tenants", start, stop)
        return found

    def _made(
        self,
        start: int,
        ids: Sequence[Any],
        vectors: Array | Sequence[Any],
        fields: list[dict[str, Any]],
        wrong: dict[int, str],
        owner: str = "",
    ) -> Window:
        """wrong : by position, what is wrong with a row, told after its number."""
        if isinstance(vectors, np.ndarray):
            block = vectors
        else:
            block, unfit = stack_rows(vectors, self.dim, self.dtype)
            wrong = {**unfit, **wrong}
        for at, row in enumerate(fields):
            try:
                row = {str(name): storable(value) for name, value in row.items()}
            except RecursionError:
                row = {}
                wrong[at] = ": its fields are nested without end"
            if self.id_column is None:
                row.setdefault("id", ids[at])
            fields[at] = row if self._only is None else {name: row[name] for name in row if name in self._only}
        bad: dict[int, VecdbError] = {start + at: self._row_error(start + at, None, wrong[at]) for at in sorted(wrong)}
        whose = [owner] * len(fields) if owner else None
        seen = [[owner] for _ in fields] if owner else None
        return Window(start, block, list(ids) if self.id_column else None, fields, bad, whose, seen)


def choose(path: str, what: str, asked: str | None, names: Sequence[str], option: str = "key") -> str:
    """The collection or table of that name, or the only one. Raises InvalidArgument that lists them."""
    if asked is not None:
        if asked not in names:
            raise InvalidArgument(f"{path}: no {what} {asked!r}; it has {list(names)}")
        return asked
    if len(names) != 1:
        found = f"has several {what}s, {list(names)}" if names else f"has no {what}"
        raise InvalidArgument(f"{path} {found}" + (f"; say which with {option}=" if names else ""))
    return names[0]
