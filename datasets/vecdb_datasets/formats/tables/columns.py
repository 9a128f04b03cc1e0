"""Which column of a table is the vector and which the id, by name and by what it holds; what an id may be.

A column that is named like an id and cannot be one is an error, never a field: numbers of rows in place of ids would
make other records of the same data.
"""

from __future__ import annotations

import decimal
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vecdb import InvalidArgument, NotFound

VECTOR_NAMES = ("vector", "vectors", "embedding", "embeddings", "emb", "vec")
ID_NAMES = ("id", "ids", "_id", "key", "uuid")
_SURE_ID_NAMES = frozenset(("id", "ids", "_id"))  # the others may well name something else
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)", re.DOTALL)
family_dim_min = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """What the caller says of a table's columns.

    vector, id : names, or paths into nested values with dots between, such as "data.0.embedding"; None: found by name
        and type. A vector in many columns is "f*" for f0, f1, f2 ...
    new_ids : no column is the id.
    fields : the columns that are fields; None: all others.
    """

    vector: str | None = None
    id: str | None = None
    new_ids: bool = False
    fields: tuple[str, ...] | None = None

    def by_facts(self, path: str, vector: str, id: str) -> Choice:
        """The choice for the file of an export, which says itself what its columns are. Raises InvalidArgument where
        the caller names others.
        """
        for option, asked, told in (("vector_column", self.vector, vector), ("id_column", self.id, id)):
            if asked not in (None, told):
                raise InvalidArgument(
                    f"{path}: this export says itself that {told!r} is the column, not {asked!r}: leave out {option}="
                )
        return Choice(vector, None if self.new_ids else id, self.new_ids, self.fields)

    def field_columns(self, path: str, rest: Iterable[str]) -> list[str]:
        """Those of the other columns that are fields. Raises NotFound where one that is named is not there."""
        names = list(rest)
        if self.fields is None:
            return names
        missing = [name for name in self.fields if name not in names]
        if missing:
            raise NotFound(f"{path}: no column {missing[0]!r} that can be a field; columns that can: {names}")
        return [name for name in names if name in self.fields]


def choose_id_column(path: str, choice: Choice, columns: Mapping[str, str]) -> str | None:
    """The id column: the named one, otherwise the one with a usual name; None when there is none.

    columns : of every column that could be named, why it cannot be the id; "" where it can.
    """
    if choice.new_ids:
        return None
    if choice.id is not None:
        if choice.id not in columns:
            fitting = [name for name, why in columns.items() if not why]
            raise NotFound(f"{path}: no column {choice.id!r} that can be the id; columns that can: {fitting}")
        if columns[choice.id]:
            raise InvalidArgument(f"{path}: column {choice.id!r} cannot be the id: {columns[choice.id]}")
        return choice.id
    lowered = {column.lower(): column for column in reversed(list(columns))}
    for name in ID_NAMES:
        column = lowered.get(name)
        if column is None or (columns[column] and name not in _SURE_ID_NAMES):
            continue
        if columns[column]:
            raise InvalidArgument(
                f"{path}: column {column!r} cannot be the id: {columns[column]}; name another with id_column=, "
                "or make it a field beside new ids with new_ids=True"
            )
        return column
    return None


def choose_vector_column(path: str, asked: str | None, candidates: Sequence[str]) -> str:
    """The vector column: the named one, one with a usual name, or the only one whose values are lists of numbers."""
    if asked is not None:
        if asked not in candidates:
            raise NotFound(f"{path}: no column {asked!r} that can be the vector; columns that can: {list(candidates)}")
        return asked
    lowered = {column.lower().rstrip("*_-. "): column for column in reversed(candidates)}
    chosen = next((lowered[name] for name in VECTOR_NAMES if name in lowered), None)
    if chosen is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen is None:
        what = f"several could be it: {list(candidates)}" if candidates else "no column holds lists of numbers"
        raise InvalidArgument(f"{path}: which column is the vector? {what}; say which with vector_column=")
    return chosen


def families(columns: Iterable[str]) -> dict[str, list[str]]:
    """Numbered columns that are one vector together: {"f*": ["f0", "f1", "f2"]}, from 0 or 1 on without a gap."""
    found: dict[str, dict[int, str]] = {}
    for column in columns:
        match = _NUMBERED.fullmatch(column)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = column
    whole = {}
    for prefix, members in found.items():
        first = min(members)
        if first in (0, 1) and len(members) >= family_dim_min and max(members) - first + 1 == len(members):
            whole[f"{prefix}*"] = [members[at] for at in sorted(members)]
    return whole


def as_id(value: Any) -> int | str:
    """A cell as an id: an int, a string, a whole float or decimal, a UUID. Raises ValueError that says why not."""
    kind = type(value)
    if kind is int or kind is str:
        return value  # type: ignore[no-any-return]
    if isinstance(value, bool):
        raise ValueError(f"{value} is no id")
    if isinstance(value, float | decimal.Decimal):
        if value != value or value in (float("inf"), float("-inf")) or value != int(value):
            raise ValueError(f"{value} is no whole number")
        if isinstance(value, float) and abs(value) > 2**53:
            raise ValueError(f"{value} is a float too large to tell neighbours apart")
        return int(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes) and len(value) == 16:
        return str(uuid.UUID(bytes=value))
    raise ValueError("is missing" if value is None else f"{kind.__name__} is no id")


def as_ids(cells: Sequence[Any]) -> tuple[list[Any], dict[int, str]]:
    """(ids, what is wrong by position); cells of one kind that need no conversion are taken as they are."""
    kinds = set(map(type, cells))
    if kinds <= {int} or kinds <= {str}:
        return list(cells), {}
    ids: list[Any] = []
    wrong: dict[int, str] = {}
    for at, cell in enumerate(cells):
        try:
            ids.append(as_id(cell))
        except ValueError as error:
            ids.append(None)
            wrong[at] = str(error)
    return ids, wrong
