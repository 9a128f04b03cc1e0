"""ManySource: several files one after the other, as if they were one. Rows are numbered through.

All have the same dim, and ids or none. At most `open_max` are open at once; one that was closed is opened again.
"""

from __future__ import annotations

import glob
import os
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vecdb import InvalidArgument, NotFound, VecdbError

from .inputs import STDIN
from .source import Array, VectorSource

open_max = 64


def expand(patterns: Sequence[str]) -> list[str]:
    """File names, with those that match in place of each pattern of *, ? and []; numbers in names in their order."""
    names: list[str] = []
    for pattern in patterns:
        if not glob.has_magic(pattern) or os.path.exists(pattern):
            names.append(pattern)
            continue
        found = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)), key=_natural)
        if not found:
            raise NotFound(f"{pattern}: no file matches")
        names += found
    if not names:
        raise InvalidArgument("no file is named")
    if len(names) > 1 and STDIN in names:
        raise InvalidArgument("'-' is standard input: name it alone")
    return names


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split("([0-9]+)", name)]


class ManySource(VectorSource):
    """opener : opens one of the files."""

    def __init__(self, names: Sequence[str], opener: Callable[[str], VectorSource]) -> None:
        self._names, self._opener = list(names), opener
        self._open: OrderedDict[int, VectorSource] = OrderedDict()
        self._ends: list[int] = []
        self.field_columns: list[str] = []
        self.path, self.lenient, self.losses = f"{names[0]} and {len(names) - 1} more", False, {}
        stamps: list[Any] = []
        tells_access = False
        try:
            first = self._source(0)
            dtype = first.dtype
            for at in range(len(self._names)):
                source = self._source(at)
                self._check(first, source)
                dtype = np.result_type(dtype, source.dtype)
                self._ends.append((self._ends[-1] if self._ends else 0) + len(source))
                stamps.append(source.stamp)
                tells_access |= source.tells_access
                new = [name for name in getattr(source, "field_columns", ()) if name not in self.field_columns]
                self.field_columns += new
        except BaseException:
            self.close()
            raise
        self.facts, self.metric, self._has_ids = first.facts, first.metric, first.has_ids
        self.tells_access = tells_access
        self.stamp = stamps if all(one is not None for one in stamps) else None
        super().__init__(self.path, first.format, (self._ends[-1], first.dim), dtype, first.check_finite)

    def _check(self, first: VectorSource, other: VectorSource) -> None:
        if other.dim != first.dim:
            raise InvalidArgument(f"{other.path} has dim {other.dim}, {first.path} has {first.dim}")
        if other.has_ids != first.has_ids:
            with_ids, without = (first, other) if first.has_ids else (other, first)
            raise InvalidArgument(f"{with_ids.path} has ids, {without.path} has none: import them one by one")
        facts = [(one.facts.metric, one.facts.dtype) if one.facts else (one.metric, None) for one in (first, other)]
        if facts[0] != facts[1]:
            raise InvalidArgument(
                f"{first.path} and {other.path} are of different metrics or dtypes: import them one by one"
            )

    def _source(self, at: int) -> VectorSource:
        source = self._open.pop(at, None)
        if source is None:
            if len(self._open) >= open_max:
                self._open.popitem(last=False)[1].close()
            source = self._opener(self._names[at])
            self.losses.update(source.losses)
            source.losses = self.losses
        source.lenient = self.lenient
        self._open[at] = source
        return source

    def _parts(self, start: int, stop: int) -> list[tuple[VectorSource, int, int, int]]:
        """(file, rows [low, high) of it, its first row here) of rows [start, stop)."""
        parts = []
        while start < stop:
            at = bisect_right(self._ends, start)
            first = self._ends[at - 1] if at else 0
            end = min(stop, self._ends[at])
            parts.append((self._source(at), start - first, end - first, first))
            start = end
        return parts

    def _read(self, start: int, stop: int) -> Array:
        blocks = [source[low:high] for source, low, high, _ in self._parts(start, stop)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks).astype(self.dtype, copy=False)

    def _broken(self, start: int, stop: int) -> dict[int, VecdbError]:
        return {
            first + row: error
            for source, low, high, first in self._parts(start, stop)
            for row, error in source.bad_rows(low, high).items()
        }

    def _column(self, name: str, start: int, stop: int | None) -> list[Any] | None:
        """What method `name` of the files gives of these rows, one after the other."""
        low, high = self._bounds(start, stop)
        empty = {"fields": dict, "owners": str, "tenants": list, "without_vectors": bool}
        found: list[Any] = []
        some = False
        for source, first, last, _ in self._parts(low, high):
            part = getattr(source, name)(first, last)
            some |= part is not None
            found += [empty[name]() for _ in range(last - first)] if part is None else part
        return found if some else None

    @property
    def has_ids(self) -> bool:
        return self._has_ids

    def ids(self, start: int = 0, stop: int | None = None) -> list[int] | list[str] | None:
        if not self._has_ids:
            return None
        low, high = self._bounds(start, stop)
        return [one for source, first, last, _ in self._parts(low, high) for one in source.ids(first, last) or ()]  # type: ignore[return-value]

    def fields(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]] | None:
        return self._column("fields", start, stop)

    def owners(self, start: int = 0, stop: int | None = None) -> list[str] | None:
        return self._column("owners", start, stop)

    def tenants(self, start: int = 0, stop: int | None = None) -> list[list[str]] | None:
        return self._column("tenants", start, stop)

    def without_vectors(self, start: int = 0, stop: int | None = None) -> list[bool] | None:
        return self._column("without_vectors", start, stop)

    def place(self, row: int) -> str:
        for source, low, _, _ in self._parts(row, row + 1):
            return source.place(low)
        return super().place(row)

    def close(self) -> None:
        for source in self._open.values():
            source.close()
        self._open.clear()
