"""An HNSW index as one value: what its file holds, what an index is made from, and what a vacuum renumbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common import stored_quantizer
from vecdb.index.common.memory import grown
from vecdb.index.common.quantizer import BITS, SQ8, ScalarQuantizer
from vecdb.index.hnsw.graph import Graph, GraphView, line_up, upper_room
from vecdb.index.hnsw.link_places import LinkPlaces
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import JACCARD, L2
from vecdb.storage.disk.row_file import RowArrays


@dataclass(frozen=True, slots=True)
class HnswState:
    """A graph index as one value: what its file holds, and what an index is made from.

    view : None while it has no codes.   coded_rows : rows that have codes.   upper_used : rows of `upper` in use.
    removed : deletions up to this sequence are unlinked.   seed : of the levels.   spoiled : see `Index.is_spoiled`.
    """

    view: GraphView | None
    coded_rows: int
    upper_used: int
    removed: int
    seed: int
    spoiled: bool = False


def graph_from(
    sections: dict[str, NDArray[Any]],
    quantiser: ScalarQuantizer,
    arrays: RowArrays,
    m: int,
    places: LinkPlaces,
    metric: int,
    mapped: bool,
) -> Graph:
    """A graph with the arrays codes, bias, links, slot, levels, upper and far of `sections`, and room for the rows of
    `arrays`. mapped : links, slot, levels and upper stay where they are, read-only.
    """
    n, upper_rows = len(sections["codes"]), len(sections["upper"])
    capacity = max(arrays.capacity, n)
    biased = len(sections["bias"]) > 0 or (n == 0 and (metric, quantiser.code_format) in ((L2, SQ8), (JACCARD, BITS)))
    graph = Graph.reserve(capacity, m, biased, quantiser, places)
    graph.codes[:n] = sections["codes"]
    if len(graph.bias):
        graph.bias[:n] = sections["bias"]
        stored_quantizer.put_far_behind(graph.bias, sections["far"], quantiser.flat_below(metric))
    if mapped:
        graph = graph.replace(
            **{name: checksums.for_kernels(sections[name]) for name in ("links", "slot", "levels")},
            upper=checksums.for_kernels(sections["upper"]) if upper_rows else graph.upper,
        )
    else:
        if upper_rows > len(graph.upper):
            upper = grown(sections["upper"], upper_room(capacity, m) + upper_rows, upper_rows)
            graph = graph.replace(upper=upper)
        for name in ("links", "slot", "levels"):
            getattr(graph, name)[:n] = sections[name]
        graph.upper[:upper_rows] = sections["upper"]
    return graph.replace(far=np.array(sections["far"]))


def renumbered(state: HnswState, mapping: NDArray[np.int64], arrays: RowArrays, m: int) -> HnswState:
    """The state over other rows. mapping : as for `Index.renumbered`. Links to rows that are gone are dropped and the
    rest move up; rows may have become unreachable by that.
    """
    view = state.view
    if view is None:
        return state
    graph = view.graph
    kept = np.flatnonzero(mapping[: view.indexed] >= 0)
    n = len(kept)
    assert np.array_equal(mapping[kept], np.arange(n)), "mapping must keep the order of rows"
    levels = graph.levels[kept]
    slot = np.where(levels > 0, np.cumsum(levels, dtype=np.int64) - levels, -1).astype(np.int32)
    upper = np.full((int(levels.sum(dtype=np.int64)), line_up(m)), -1, np.int32)
    has_upper = np.flatnonzero(levels > 0)
    for layer in range(int(levels.max(initial=0))):
        high = has_upper[levels[has_upper] > layer]
        upper[slot[high] + layer] = _translated(graph.upper[graph.slot[kept[high]] + layer], mapping)
    sections: dict[str, NDArray[Any]] = {
        "codes": graph.codes[kept],
        "bias": graph.bias[kept] if len(graph.bias) else graph.bias,
        "links": _translated(graph.links[kept], mapping),
        "slot": slot,
        "levels": levels,
        "upper": upper,
        "far": _renamed_rows(graph.far[graph.far < view.indexed], mapping),
    }
    entry = int(mapping[view.entry]) if view.entry >= 0 else -1
    level = view.level if n else 0
    if entry < 0 and n:
        entry = int(levels.argmax())
        level = int(levels[entry])
    fresh = graph_from(sections, graph.quantiser, arrays, m, graph.places, view.metric, False)
    new = GraphView(fresh, arrays, view.metric, n, entry, level)
    return HnswState(new, n, len(upper), state.removed, state.seed, state.spoiled)


def _renamed_rows(rows: NDArray[np.int32], mapping: NDArray[np.int64]) -> NDArray[np.int32]:
    """New numbers of those rows that are kept."""
    new = mapping[rows]
    return new[new >= 0].astype(np.int32)


def _translated(links: NDArray[np.int32], mapping: NDArray[np.int64]) -> NDArray[np.int32]:
    """Links under new numbers, those that are gone removed, the others moved up in order."""
    renamed = np.where(links >= 0, mapping[links], -1).astype(np.int32)
    order = np.argsort(renamed < 0, axis=1, kind="stable")
    moved: NDArray[np.int32] = np.take_along_axis(renamed, order, axis=1)
    return moved
