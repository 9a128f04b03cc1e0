"""Records on their way to a shard: arrays of a file's or a table's rows, cut by the shards that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import validate
from vecdb.api.collection import Collection
from vecdb.cluster.slots import slots_of
from vecdb.errors import InvalidArgument

_BATCH_ROWS = 16_384  # of one write


@dataclass(frozen=True, slots=True)
class RecordRows:
    """ids : int64[n] or n strings.   vectors : [n, dim], zeros where `bare` says that a record has none.   fields,
    owners, tenants : of each record, None where no record has any.
    """

    ids: NDArray[np.int64] | list[str]
    vectors: NDArray[Any]
    fields: list[dict[str, Any]] | None = None
    owners: list[str] | None = None
    tenants: list[list[str]] | None = None
    bare: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, at: NDArray[np.int64]) -> RecordRows:
        """The records at these positions."""

        def of(values: list[Any] | None) -> Any:
            return None if values is None else [values[i] for i in at.tolist()]

        ids = self.ids[at] if isinstance(self.ids, np.ndarray) else of(self.ids)
        bare = None if self.bare is None else self.bare[at]
        return RecordRows(ids, self.vectors[at], of(self.fields), of(self.owners), of(self.tenants), bare)

    def by_owner(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """(owner, positions) of all records."""
        if self.owners is None:
            yield "", np.arange(len(self))
            return
        owners = np.array(self.owners, object)
        for owner in dict.fromkeys(self.owners):
            yield owner, np.flatnonzero(owners == owner)

    def slots(self) -> NDArray[np.int64]:
        """int64[n]. Raises InvalidArgument for what can be no id or owner."""
        found = np.empty(len(self), np.int64)
        for owner, at in self.by_owner():
            ids = self.ids[at] if isinstance(self.ids, np.ndarray) else [self.ids[i] for i in at.tolist()]
            found[at] = slots_of(validate.ids(ids), validate.owner(owner))
        return found

    def split(self, table: NDArray[np.int64], shards: int) -> list[RecordRows]:
        """The records of each of so many shards, in order. table : int64[4096], the shard of each slot."""
        owned = table[self.slots()]
        return [self.take(np.flatnonzero(owned == shard)) for shard in range(shards)]

    def upsert_into(self, docs: Collection) -> None:
        for owner, at in self.by_owner():
            for first in range(0, len(at), _BATCH_ROWS):
                some = self.take(at[first : first + _BATCH_ROWS])
                docs.upsert(some.ids, some._given(), some.fields, some.tenants, owner=owner)

    def _given(self) -> Any:
        """Vectors as `upsert` takes them, None in the place of those that are not there."""
        if self.bare is None or not self.bare.any():
            return self.vectors
        given = np.empty(len(self), object)
        for at, bare in enumerate(self.bare.tolist()):
            given[at] = None if bare else self.vectors[at]
        return given


def rows_of_block(block: Mapping[str, Any], id_column: str, vector_column: str, first: int) -> RecordRows:
    """The rows of one block of a table: a mapping of columns, arrays of n values. first : the id of its first row,
    where there is no column of ids. Raises InvalidArgument.
    """
    if vector_column not in block:
        raise InvalidArgument(f"the data have no column {vector_column!r}: {', '.join(map(str, block))}; name another")
    column = np.asarray(block[vector_column])
    vectors = np.stack(list(column)) if column.dtype == object and len(column) else column
    n = len(vectors)
    given = block.get(id_column)
    ids: Any = np.arange(first, first + n) if given is None else np.asarray(given)
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
        ids = [str(one) for one in ids]
    names = [name for name in block if name not in (id_column, vector_column)]
    columns = {name: np.asarray(block[name]).tolist() for name in names}
    fields = [{name: columns[name][at] for name in names} for at in range(n)] if names else None
    return RecordRows(ids.astype(np.int64) if isinstance(ids, np.ndarray) else ids, vectors, fields)
