"""Search results: arrays first; records, tables and a notebook view on request.

    one query     ids int64[k] or object[k], distances float32[k]; hits[0] is a Hit
    many queries  ids [nq, limit], distances [nq, limit], padded with -1 / None and inf beyond counts; hits[0] is the
                  Hits of query 0, without padding

Scores, larger is better: cosine 1 - distance (the cosine similarity), ip minus distance (the inner product), l2 minus
distance (so that the order is exactly that of the distances).

Threads: immutable after construction; any number of readers.
Invariant: fields stay msgpack bytes until they are read (`packed`, nested as `fields` was given).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vecdb.api import tables
from vecdb.api.notebook import plotted
from vecdb.schema import Id, Metric
from vecdb.validate import decode_fields

_SHOWN_MAX = 20  # rows of a notebook table
_ONE_LESS = ("cosine", "jaccard")  # metrics whose score is 1 - distance, a similarity; of others it is -distance


@dataclass(frozen=True, slots=True)
class Hit:
    """One neighbour. `fields` is {} and `vector` is None when they were not asked for; `component` is the one of
    a mixture search that found it; `owner` says whose record it is: two owners may have the same id.
    """

    id: Id
    distance: float
    score: float
    fields: dict[str, Any] = field(default_factory=dict)
    vector: NDArray[Any] | None = None
    component: int | None = None
    owner: str = ""


@dataclass(slots=True)
class NamedRows:
    """Rows of the records of one collection, by which a search of several collections is made in two rounds.

    rows : int64[any], those of all queries, one query after another.   counts : int64[nq], of each query.
    generation, sequence : where rows have these numbers, and the committed state at which they were named.
    estimates, margins : float32[any], distances and by how much they may be off; of no use to who scores the rows.
    explain : what was done, where that was asked for.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]
    generation: int
    sequence: int
    estimates: NDArray[np.float32]
    margins: NDArray[np.float32]
    explain: dict[str, Any] | None = None


class Hits:
    """The answer of one search call.

    Parameters
    ----------
    ids : int64 or object, [k] or [1, limit] when `single`, else [nq, limit]
    distances : float32, same shape
    counts : int64[nq], how many of each row are hits; None where `single` and all of `ids` are
    sequence : the committed state that was searched; of a cluster a dict with that of each shard
    missing : attribute; of a cluster that was opened with `allow_partial`, the shards that could not be asked, else ()
    fields : per hit msgpack bytes, kept as `packed`: [k] when `single`, else one sequence per query; None when not
        asked for
    vectors : [k, dim] when `single`, else [nq, limit, dim]; None when not asked for
    explain : what the search did, when asked for
    select : field names to return, None for all
    components : int64[k] of a mixture search (one query): the component that found each hit, 0 the strongest; else None
    owners : object, the shape of `ids`: whose record each hit is, "" where it has no owner; None where none has one
    """

    __slots__ = (
        "_counts",
        "_metric",
        "_select",
        "components",
        "distances",
        "explain",
        "ids",
        "missing",
        "owners",
        "packed",
        "sequence",
        "single",
        "vectors",
    )

    def __init__(
        self,
        ids: NDArray[Any],
        distances: NDArray[np.float32],
        counts: NDArray[np.int64] | None,
        sequence: Any,
        metric: Metric,
        single: bool,
        fields: Sequence[Any] | None = None,
        vectors: NDArray[Any] | None = None,
        explain: dict[str, Any] | None = None,
        select: tuple[str, ...] | None = None,
        components: NDArray[np.int64] | None = None,
        owners: NDArray[Any] | None = None,
    ) -> None:
        if single and counts is not None and ids.ndim == 2:
            ids, distances = ids[0], distances[0]
            count = counts.item(0)
            if count < len(ids):
                ids, distances = ids[:count], distances[:count]
        if owners is not None and single and owners.ndim == 2:
            owners = owners[0, : len(ids)]
        self.ids = ids
        self.distances = distances
        self._counts = counts
        self.sequence = sequence
        self.single = single
        self.vectors = vectors
        self.explain = explain
        self.components = components
        self.owners = owners
        self._metric: Metric = metric
        self.packed = fields
        self._select = select
        self.missing: tuple[int, ...] = ()

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64[nq]: how many of each query's places are hits."""
        if self._counts is None:
            self._counts = np.array([len(self.ids)], np.int64)
        return self._counts

    @property
    def scores(self) -> NDArray[np.float32]:
        """float32, the shape of `distances`; larger is better, -inf where a batch is padded."""
        return (np.float32(1) if self._metric in _ONE_LESS else np.float32(0)) - self.distances

    @property
    def plan(self) -> Any:
        """The plan that the search followed, when it was asked to explain itself."""
        return None if self.explain is None else self.explain.get("plan")

    @property
    def fields(self) -> list[Any]:
        """A dict per hit; for a batch, a list of them per query. {} where no fields were asked for."""
        if not self.single:
            return [one.fields for one in self]
        return [self._fields_of(i) for i in range(len(self.ids))]

    def _fields_of(self, i: int) -> dict[str, Any]:
        return {} if self.packed is None else decode_fields(self.packed[i], self._select)

    def __len__(self) -> int:
        """Hits of one query; queries of a batch."""
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> Hits: ...
    def __getitem__(self, at: int | slice) -> Any:
        """A Hit of one query's hits, the Hits of one query of a batch, or for a slice the same kind with fewer."""
        if isinstance(at, slice):
            return self._slice(at)
        size = len(self.ids)
        i = int(at)
        if not -size <= i < size:
            raise IndexError(f"position {at} of {size} {'hits' if self.single else 'queries'}")
        i %= size
        if not self.single:
            return self._query(i)
        vector = None if self.vectors is None else self.vectors[i]
        component = None if self.components is None else int(self.components[i])
        return Hit(
            self.ids[i : i + 1].tolist()[0], float(self.distances[i]), self._score(i), self._fields_of(i), vector,
            component, "" if self.owners is None else self.owners[i],
        )  # fmt: skip

    def _score(self, i: int) -> float:
        distance = self.distances[i]
        return float((np.float32(1) if self._metric in _ONE_LESS else np.float32(0)) - distance)

    def _query(self, q: int) -> Hits:
        count = int(self.counts[q])
        fields = None if self.packed is None else self.packed[q]
        vectors = None if self.vectors is None else self.vectors[q, :count]
        ids, distances, counts = self.ids[q, :count], self.distances[q, :count], self.counts[q : q + 1]
        owners = None if self.owners is None else self.owners[q, :count]
        made = Hits(
            ids, distances, counts, self.sequence, self._metric, True, fields, vectors, self.explain, self._select,
            owners=owners,
        )  # fmt: skip
        made.missing = self.missing
        return made

    def _slice(self, at: slice) -> Hits:
        ids, distances = self.ids[at], self.distances[at]
        counts = np.array([len(ids)], np.int64) if self.single else self.counts[at]
        fields = None if self.packed is None else self.packed[at]
        vectors = None if self.vectors is None else self.vectors[at]
        components = None if self.components is None else self.components[at]
        made = Hits(
            ids,
            distances,
            counts,
            self.sequence,
            self._metric,
            self.single,
            fields,
            vectors,
            self.explain,
            self._select,
            components,
            None if self.owners is None else self.owners[at],
        )
        made.missing = self.missing
        return made

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    # -- the same hits in other forms ----------------------------------------------------------

    def to_list(self) -> list[Any]:
        """A dict per hit with id, distance, score, owner where a hit has one, component of a mixture search and, where
        asked for, fields and vector; a list of them per query. Ids and numbers are plain ones of Python, as JSON wants.
        """
        if not self.single:
            return [one.to_list() for one in self]
        out = []
        for hit in self:
            row = {"id": hit.id, "distance": hit.distance, "score": hit.score}
            if self.owners is not None:
                row["owner"] = hit.owner
            if hit.component is not None:
                row["component"] = hit.component
            if self.packed is not None:
                row["fields"] = hit.fields
            if hit.vector is not None:
                row["vector"] = hit.vector
            out.append(row)
        return out

    def _columns(self) -> dict[str, Any]:
        """Columns without padding: query (batches only), id, distance, score, owner (where a hit has one), component
        (mixture searches only), vector, then one per field.
        """
        parts: list[Hits] = [self] if self.single else list(self)
        columns: dict[str, Any] = {}
        if not self.single:
            columns["query"] = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        columns["id"] = [one for part in parts for one in part.ids.tolist()]
        columns["distance"] = _joined([part.distances for part in parts])
        columns["score"] = _joined([part.scores for part in parts])
        if self.owners is not None:
            columns["owner"] = [one for part in parts for one in part.owners.tolist()]  # type: ignore[union-attr]
        if self.components is not None:
            columns["component"] = self.components
        if self.vectors is not None:
            columns["vector"] = [row for part in parts for row in part.vectors.tolist()]  # type: ignore[union-attr]
        if self.packed is not None:
            rows = [one for part in parts for one in part.fields]
            taken = set(columns)
            for name in dict.fromkeys(name for row in rows for name in row):
                columns[f"fields.{name}" if name in taken else name] = [row.get(name) for row in rows]
        return columns

    def to_pandas(self) -> Any:
        """A pandas.DataFrame: id, distance, score, a column per field; a batch has the column `query` in front."""
        return tables.library("pandas").DataFrame(self._columns())

    def to_polars(self) -> Any:
        """The same columns as a polars.DataFrame."""
        library = tables.library("polars")
        return tables.built("polars", lambda: library.DataFrame(self._columns(), strict=False))

    def to_arrow(self) -> Any:
        """The same columns as a pyarrow.Table."""
        library = tables.library("pyarrow")
        return tables.built("pyarrow", lambda: library.table(self._columns()))

    def plot(self, label: str | None = None, *, axes: Any = None) -> Any:
        """Draw the distances with matplotlib, a bar for each hit, nearest first, or of a batch a line for each query.

        label : a field whose values name the bars; None: ids.   axes : to draw into; None: new ones.
        Returns the axes. Raises InvalidArgument where no hit has the field.
        """
        return plotted(self, label, axes)

    def __repr__(self) -> str:
        if not self.single:
            return f"Hits({len(self)} queries, {int(self.counts.sum())} hits, sequence={self.sequence})"
        shown = ", ".join(
            f"{one!r}: {d:.4g}" for one, d in zip(self.ids[:3].tolist(), self.distances[:3].tolist(), strict=True)
        )
        more = ", ..." if len(self) > 3 else ""
        return f"Hits({len(self)} hits, {{{shown}{more}}}, sequence={self.sequence})"

    def _repr_html_(self) -> str:
        """A table of the first rows for notebooks; everything from the data is escaped."""
        part = self[:_SHOWN_MAX]
        columns = part._columns()
        rows = list(zip(*columns.values(), strict=True))[:_SHOWN_MAX]
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{_cell(one)}</td>" for one in row) + "</tr>" for row in rows)
        total = int(self.counts.sum()) if not self.single else len(self)
        more = f"<p>{len(rows)} of {total} hits</p>" if total > len(rows) else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _cell(value: object) -> str:
    text = f"{value:.4f}" if isinstance(value, (float, np.floating)) else str(value)
    return html.escape(text if len(text) <= 80 else text[:80] + "...")
