"""The live arrays of a graph index and the view of them that searches take.

    links   int32[capacity, stride]      layer 0: up to 2 m neighbours, then -1; whole cache lines; some by l2 and some
                                         by another measure where data need it (link_places.py)
    upper   int32[room, stride]          layers 1..level(row) of a row from slot[row] on: up to m neighbours, then -1
    slot    int32[capacity]              -1 for rows on layer 0 only
    levels  int8[capacity]
    codes   uint8[capacity, 64 * blocks]     of the quantizer's format; bias  int32[capacity] or empty
                                         (code_choice.needs_bias)
    far     int32[any]                   rows whose codes say little (kernels/codes/sq8.py); replaced when it grows

Node number == row number. Memory is reserved with room and costs nothing until touched; when room is used up larger
arrays take the place of the old ones, which stay valid for searches that hold them.

A `GraphView` is immutable and published whole: entry point, level and number of indexed rows always belong together.
Links are written in place under running searches: a new row's own links before any link to it, rows a word at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.memory import reserve
from vecdb.index.common.quantizer import ScalarQuantizer, block_count, kernel_blocks
from vecdb.index.hnsw.link_places import LinkPlaces
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import JACCARD, L2
from vecdb.kernels.search.beam_search import GraphArrays
from vecdb.kernels.search.graph_search import SearchedGraph
from vecdb.storage.disk.row_file import RowArrays

LEVEL_MAX = 15
_CAPACITY_MIN = 1 << 16
_NO_ROWS: NDArray[np.int32] = np.empty(0, np.int32)
_NO_BIAS: NDArray[np.int32] = np.empty(0, np.int32)  # a query is compared by inner product even where rows are not


def line_up(links: int) -> int:
    """Places for `links` int32 in whole cache lines."""
    return -(-links // 16) * 16


def levels_of(first: int, stop: int, m: int, seed: int) -> NDArray[np.int8]:
    """Levels of rows [first, stop): exponential with mean 1 / ln(m), from a hash of (seed, row) (splitmix64)."""
    x = np.arange(first, stop, dtype=np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    x *= np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    uniform = ((x >> np.uint64(11)).astype(np.float64) + 1.0) / 2.0**53
    levels: NDArray[np.int8] = np.minimum(-np.log(uniform) / np.log(m), LEVEL_MAX).astype(np.int8)
    return levels


class Graph:
    """The arrays themselves; replaced, not changed, when they grow or when rows are encoded anew."""

    __slots__ = ("bias", "codes", "far", "levels", "links", "places", "quantiser", "slot", "upper")

    def __init__(
        self,
        quantiser: ScalarQuantizer,
        codes: NDArray[np.uint8],
        bias: NDArray[np.int32],
        links: NDArray[np.int32],
        upper: NDArray[np.int32],
        slot: NDArray[np.int32],
        levels: NDArray[np.int8],
        places: LinkPlaces,
        far: NDArray[np.int32] = _NO_ROWS,
    ) -> None:
        self.quantiser = quantiser
        self.codes = codes
        self.bias = bias
        self.links = links
        self.upper = upper
        self.slot = slot
        self.levels = levels
        self.far = far
        self.places = places

    @staticmethod
    def reserve(capacity: int, m: int, biased: bool, quantiser: ScalarQuantizer, places: LinkPlaces) -> Graph:
        capacity = max(capacity, _CAPACITY_MIN)
        return Graph(
            quantiser,
            reserve((capacity, quantiser.width), np.uint8),
            reserve(capacity if biased else 0, np.int32),
            reserve((capacity, line_up(places.total)), np.int32),
            reserve((upper_room(capacity, m), line_up(m)), np.int32),
            reserve(capacity, np.int32),
            reserve(capacity, np.int8),
            places,
        )

    def replace(self, **arrays: Any) -> Graph:
        """A copy with some arrays exchanged."""
        return Graph(**{name: arrays.get(name, getattr(self, name)) for name in self.__slots__})

    def with_codes(self, quantiser: ScalarQuantizer, biased: bool) -> Graph:
        """The same links with room for codes of another quantizer."""
        capacity = len(self.codes)
        codes, bias = reserve((capacity, quantiser.width), np.uint8), reserve(capacity if biased else 0, np.int32)
        return self.replace(quantiser=quantiser, codes=codes, bias=bias, far=_NO_ROWS)

    @property
    def blocks(self) -> tuple[Any, ...]:
        """Of the codes, as kernels take them (kernels/codes/code_formats.py)."""
        return kernel_blocks(self.codes.shape[1], self.quantiser.code_format)

    def arrays(self) -> GraphArrays:
        """As kernels take it."""
        return GraphArrays(self.codes, self.bias, self.links, self.upper, self.slot)

    def nbytes(self, rows: int, upper_rows: int) -> int:
        """Bytes in use by `rows` rows."""
        per_row = self.codes.shape[1] + 4 * self.links.shape[1] + (4 if len(self.bias) else 0) + 4 + 1
        return int(rows * per_row + upper_rows * 4 * self.upper.shape[1])


def bytes_per_row(dim: int, m: int) -> int:
    """Memory of one row of a graph: code, bias, links, slot and level, and its share of the upper layers."""
    return 64 * block_count(dim) + 4 + 4 * line_up(2 * m) + 4 + 1 + 4 * line_up(m) // max(1, m - 1)


def upper_room(capacity: int, m: int) -> int:
    """Rows of `upper` to reserve: a row has 1 / (m - 1) upper layers on average; a quarter and a bit more."""
    return int(capacity / (m - 1) * 1.25) + 1024


class GraphView:
    """What one search works on: a graph as it was published, with the rows it is of, and both as a table for the
    kernel (kernels/search/graph_search.py).
    """

    __slots__ = ("arrays", "entry", "graph", "indexed", "level", "metric", "table", "vectors")

    def __init__(self, graph: Graph, arrays: RowArrays, metric: int, indexed: int, entry: int, level: int) -> None:
        self.graph = graph
        self.arrays = arrays
        self.metric = metric
        self.indexed = indexed
        self.entry = entry
        self.level = level
        self.vectors = checksums.for_kernels(arrays.vectors)
        self.table = ArrayTable(
            SearchedGraph(
                graph=graph.arrays() if metric in (L2, JACCARD) else graph.arrays()._replace(bias=_NO_BIAS),
                indexed=indexed,
                entry=entry,
                level=level,
                metric=metric,
                scale=graph.quantiser.scale,
                parameters=graph.quantiser.parameters,
                far=graph.far,
                crcs=arrays.crcs,
                verified=arrays.verified,
                deleted=arrays.deleted,
            )
        )

    def replace(self, **changed: Any) -> GraphView:
        """A view in which some of graph, arrays, indexed, entry, level are others."""
        names = ("graph", "arrays", "metric", "indexed", "entry", "level")
        return GraphView(**{name: changed.get(name, getattr(self, name)) for name in names})
