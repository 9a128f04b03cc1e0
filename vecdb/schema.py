"""Values that users pass and get: frozen, without behaviour.

Metric distances (smaller is closer):  l2 = sum (a - b)^2,  cosine = 1 - a.b / (|a| |b|),  ip = -a.b
and of vectors of bits:                hamming = bits that differ,  jaccard = 1 - |a and b| / |a or b|, 0 of two zeros
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Metric = Literal["l2", "cosine", "ip", "hamming", "jaccard"]
DType = Literal["float32", "float16", "int8", "uint8", "bits"]
ZeroVectors = Literal["refuse", "far"]
BITS = "bits"
NUMBER_METRICS: tuple[str, ...] = ("l2", "cosine", "ip")
BIT_METRICS: tuple[str, ...] = ("hamming", "jaccard")  # of dtype bits, which has no others
METRICS: tuple[str, ...] = (*NUMBER_METRICS, *BIT_METRICS)
NUMBER_DTYPES: tuple[str, ...] = ("float32", "float16", "int8", "uint8")
DTYPES: tuple[str, ...] = (*NUMBER_DTYPES, BITS)  # by place in row files: they never change
ZERO_VECTORS: tuple[str, ...] = ("refuse", "far")

Id = int | str


@dataclass(frozen=True, slots=True)
class Flat:
    """Exact scan: no structure to build, every answer exact. Right for small collections."""

    kind: ClassVar[str] = "flat"  # stored, and sent: of each kind of index it never changes


@dataclass(frozen=True, slots=True)
class Hnsw:
    """HNSW graph (Malkov and Yashunin, 2016).

    m : links per node on upper layers; twice as many on layer 0.
    ef_construction : beam width while building.
    ef : beam width of a search that names neither `ef` nor `recall`, until `tune` has picked a better one; None: as
        wide as the data were measured to need for a recall of 0.95, 192 before that.
    quantization : the walk is on 8-bit codes; "sq8" scores the best few of the beam again on the full vectors, None
        all of it.
    """

    kind: ClassVar[str] = "hnsw"

    m: int = 16
    ef_construction: int = 200
    ef: int | None = None
    quantization: Literal["sq8"] | None = "sq8"


@dataclass(frozen=True, slots=True)
class Spann:
    """Posting lists on SSD (SPANN, Chen et al., 2021) with RaBitQ codes and updates in place (SPFresh, Xu et al.,
    2023).

    bits : of the codes, a dimension: 1, 2, 4 or 8. With 8, rows of 8-bit integers under l2 are their own codes.
    replicas : lists that a row may be in; None: 1 where codes are in memory, 4 where they are read from disk.
    head_ratio : lists per row when the tree is grown.
    nprobe : lists looked at by a search that names neither `nprobe` nor `recall`, until `tune` has picked another
        number; None: as many as the data were measured to need for a recall of 0.95, 128 before that.
    rerank : most rows read and scored on their full vectors; None: 4 limit + 20. Fewer are read where the codes' error
        allows it.
    memory_budget_bytes : for codes; None keeps all lists' codes in memory, 0 none, anything between the hottest.
    posting_bytes_max : ceiling of one list, past which it is split; None: twice the fair share.
    """

    kind: ClassVar[str] = "spann"

    bits: int = 2
    replicas: int | None = None
    head_ratio: float = 0.02
    nprobe: int | None = None
    rerank: int | None = None
    memory_budget_bytes: int | None = None
    posting_bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class Curator:
    """One clustering tree that many tenants share (after Curator, Jin et al., 2024), each served as by an index of its
    own. For collections whose searches name a tenant; those that do not search the same codes.

    From 65,536 records on, the first search that sees much of them, or names no tenant, has a graph grown beside the
    tree, by maintenance or the next `optimize`. It takes about as much memory again as the codes.

    leaf_rows : rows of a leaf, on average. A group of leaves is as large as makes as many groups.
    shortlist_max : rows that a tenant may have in a group before its leaves are told apart.
    scan_max : rows of a tenant that are all compared; those of a larger one along the tree, without a graph. None: as
        many as `optimize` finds to be as fast as the tree on this machine.
    nprobe : leaves looked at by a search without a tenant that names neither `nprobe` nor `recall`, without a graph;
        None: all rows, the graph, or what `optimize` and `tune` learned, whichever is fastest.
    """

    kind: ClassVar[str] = "curator"

    leaf_rows: int = 64
    shortlist_max: int = 256
    scan_max: int | None = None
    nprobe: int | None = None


IndexConfig = Flat | Hnsw | Spann | Curator


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How to search. None means: what the collection learned from `tune`, or its default.

    ef : beam width of a graph search.   nprobe : lists read by a list index.
    recall : target recall@limit in (0, 1]; picks ef / nprobe from what was measured on the data, by maintenance,
        `optimize` or `tune`; before that all vectors are compared.
    exact : compare with every vector.   threads : threads that share a batch of queries.
    rerank : of a list index, the rows of a query that are read and scored on their full vectors, the limit and two more
        at least; None: as many as the codes' error asks for, up to `Spann(rerank=)`.
    """

    ef: int | None = None
    nprobe: int | None = None
    recall: float | None = None
    exact: bool = False
    threads: int = 1
    rerank: int | None = None


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """What is fixed at creation (only `index` may change, through `reindex`). `index=None`: chosen by size.

    dim : 0 where the collection was made without one and no vectors were written yet; of dtype bits, how many bits.
    id_kind : what ids the collection has, fixed by the first write; None before it.
    metadata : what users have noted about the collection; `set_metadata` changes it.
    zero_vectors : of metric cosine, which has no direction for them: "refuse" raises InvalidArgument, "far" takes them.
        A zero vector has similarity 0 and distance 1 to every other, to itself, and as a query. Under l2 and ip it is a
        vector like others, whatever this says.
    """

    name: str
    dim: int
    metric: Metric
    dtype: DType
    index: IndexConfig | None
    id_kind: Literal["int", "str"] | None = None
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)
    zero_vectors: ZeroVectors = "refuse"

    @property
    def elements(self) -> int:
        """Numbers of a stored vector: `dim`, and of bits the bytes that hold them."""
        return elements(self.dim, self.dtype)

    @property
    def element_type(self) -> str:
        """NumPy's name of the type of these numbers."""
        return element_type(self.dtype)


def elements(dim: int, dtype: str) -> int:
    """Numbers of a stored vector of this dim and dtype."""
    return dim if dtype != BITS else dim // 8


def element_type(dtype: str) -> str:
    """NumPy's name of what a stored vector of this dtype consists of."""
    return dtype if dtype != BITS else "uint8"


@dataclass(frozen=True, slots=True)
class Visibility:
    """One committed state: rows [0, row_count) whose deletion, if any, came after `sequence` are visible.

    live_count : how many of them have a vector, so that a search may find them.
    """

    sequence: int
    row_count: int
    live_count: int


@dataclass(slots=True)
class Record:
    """A record as `get` and `iter` return it. tenants : names of all that may see it, in order. owner : whose it is."""

    id: Id
    fields: dict[str, Any] = field(default_factory=dict)
    tenants: list[str] = field(default_factory=list)
    vector: Any = None  # ndarray[dim] of the collection's dtype; None when not asked for, or where it has none
    owner: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A dict with id, fields and tenants, owner where it has one and vector where it was asked for, as
        `Hits.to_list` has those of hits.
        """
        found: dict[str, Any] = {"id": self.id, "fields": self.fields, "tenants": self.tenants}
        if self.owner:
            found["owner"] = self.owner
        if self.vector is not None:
            found["vector"] = self.vector
        return found


class Facets(Mapping[Any, int]):
    """How many records have each value, as `Collection.facets` returns it: a mapping {value: count}, whose values of
    different types are different keys, True, 1 and 1.0 among them. It equals a dict of the same values and counts.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Iterable[tuple[Any, int]]) -> None:
        self._counts = {(type(value), value): count for value, count in counts}

    def __getitem__(self, value: Any) -> int:
        return self._counts[type(value), value]

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and all(self.get(value) == count for value, count in other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{value!r}: {count}" for value, count in self.items()) + "}"
