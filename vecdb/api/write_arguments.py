"""What a write is given, as batches: records taken apart, checked together, and split where a call may be split.

ids, vectors, fields, tenants -> WriteArguments -> Batch            all at once
                                                -> parts -> Batch   a slice each, of a call that is not atomic
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from numpy.typing import NDArray

from vecdb import limits, validate
from vecdb.api.backend import Batch, Mode
from vecdb.api.embedding import TextVectors
from vecdb.api.whole_records import TakenApart, is_whole, take_apart
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded
from vecdb.schema import CollectionConfig


class Gate(NamedTuple):
    """How a collection looks at what it is given. ids_of : checks ids.   shaped : of vectors, the configuration with
    their dim where the collection has none yet.
    """

    ids_of: Callable[[Any], validate.IdBatch]
    config: CollectionConfig
    shaped: Callable[[Any], CollectionConfig]


class WriteArguments(NamedTuple):
    """Arguments of one write, of which whole records were taken apart. kept : access lists gain `tenants`."""

    ids: Any
    vectors: Any
    fields: Any
    tenants: Any
    mode: Mode
    kept: bool

    @property
    def n(self) -> int:
        """How many ids there are, before they are looked at; 1 for what is no sequence."""
        ids = self.ids
        return len(ids) if isinstance(ids, (list, tuple, range)) or getattr(ids, "ndim", 0) == 1 else 1

    def batch(self, gate: Gate) -> Batch:
        """All of it, checked. Raises InvalidArgument, AlreadyExists, LimitExceeded."""
        checked = gate.ids_of(self.ids)
        if self.mode == "insert" and checked.unique is not None:
            raise AlreadyExists(
                f"insert got {checked.n - len(checked.unique)} ids twice in one batch; give each id once, or use upsert"
            )
        vectors = self.vectors[:] if isinstance(self.vectors, TextVectors) else self.vectors
        some = validate.some_vectors(
            vectors, checked.n, gate.config, gate.shaped, single=checked.scalar, empty_ok=checked.n == 0
        )
        if some.n != checked.n:
            raise InvalidArgument(
                f"got {checked.n:,} ids and {some.n:,} vectors: pass one vector per id, None for a record without one"
            )
        maps = validate.fields(self.fields, checked.n, single=checked.scalar)
        lists = None
        if self.tenants is not None:
            lists = validate.access_lists(self.tenants, checked.n, single=checked.scalar, kept=self.kept)
        check_size(some.vectors, maps, "write it in several calls, or with atomic=False")
        if checked.unique is None:
            return Batch(checked, some.vectors, maps, lists, some.bare)
        keep = checked.first_positions() if self.mode == "skip" else checked.unique
        some = some.take(keep)
        return Batch(
            checked.take(keep),
            some.vectors,
            None if maps is None else [maps[i] for i in keep.tolist()],
            None if lists is None else lists.take(keep, checked.n),
            some.bare,
        )

    def parts(self, rows: Callable[[], int]) -> Iterator[WriteArguments]:
        """Slices, once it is clear that all of it can be sliced. rows : how many the next one may have, which a write
        of the one before it may change. Raises InvalidArgument.
        """
        tenants = self.tenants
        if tenants is not None and not isinstance(tenants, str):
            tenants = validate.listed_tenants(tenants, self.n)
        each = _one_each(tenants)
        _check_parts(len(self.ids), self.vectors, self.fields, tenants if each else None)
        return self._replace(tenants=tenants)._slices(rows, each)

    def _slices(self, rows: Callable[[], int], each: bool) -> Iterator[WriteArguments]:
        start = 0
        while start < len(self.ids):
            stop = start + rows()
            yield self._part(slice(start, stop), each)
            start = stop

    def _part(self, part: slice, each: bool) -> WriteArguments:
        return WriteArguments(
            self.ids[part],
            None if self.vectors is None else self.vectors[part],
            None if self.fields is None else _slice_fields(self.fields, part),
            self.tenants[part] if each else self.tenants,
            self.mode,
            self.kept,
        )


def taken_apart(ids: Any, vectors: Any, fields: Any, id: Any, vector: Any) -> TakenApart:
    """ids, vectors and fields of a write, which may have been given as whole records."""
    if is_whole(ids):
        if vectors is not None or fields is not None:
            raise InvalidArgument(
                "these ids are whole records, which bring vectors and fields with them: leave both arguments out"
            )
        return take_apart(ids, id, vector)
    if id is not None or vector is not None:
        raise InvalidArgument("id= and vector= name columns of whole records, such as a table: these are ids")
    if vectors is None and hasattr(ids, "__len__") and not isinstance(ids, str) and not len(ids):
        vectors = ()
    if vectors is None and fields is None:
        raise InvalidArgument(
            "a write needs vectors, an array of them beside the ids, or fields of records that have none; or whole "
            "records, such as a table"
        )
    return TakenApart(ids, vectors, fields)


def check_size(vectors: NDArray[Any], fields: list[bytes] | None, instead: str) -> None:
    size_bytes = vectors.nbytes + sum(map(len, fields or ()))
    if size_bytes > limits.batch_bytes_max:
        raise LimitExceeded(
            f"one atomic call takes at most {limits.batch_bytes_max:,} bytes, this one has {size_bytes:,}: {instead}"
        )


def _one_each(tenants: Any) -> bool:
    """Whether they are a list of lists, one for each record."""
    return isinstance(tenants, (list, tuple)) and any(not isinstance(one, str) for one in tenants)


def _check_parts(n: int, vectors: Any, fields: Any, tenants: Any) -> None:
    """What a call that is split brings is read in slices, of which each would be checked when others are written."""
    columns = fields.values() if isinstance(fields, dict) else (fields,)
    for what, value in (("vectors", vectors), *(("fields", column) for column in columns), ("tenants", tenants)):
        if value is None:
            continue
        if not hasattr(value, "__getitem__"):
            raise InvalidArgument(
                f"{what} must be an array or a list, got a {type(value).__name__}: a call that is split reads slices"
            )
        if hasattr(value, "__len__") and len(value) != n:
            raise InvalidArgument(f"got {n:,} ids and {len(value):,} of {what}: pass one per id")


def _slice_fields(fields: Any, part: slice) -> Any:
    if isinstance(fields, dict):
        return {name: column[part] for name, column in fields.items()}
    return fields.iloc[part] if hasattr(fields, "iloc") else fields[part]
