"""What must hold of an HNSW graph, each line proven from the arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.hnsw import graph_codes
from vecdb.index.hnsw.graph import Graph, GraphView
from vecdb.kernels.build import repair

_SAMPLE = 512


def violations(view: GraphView, unlinked: NDArray[np.bool_]) -> list[str]:
    """Violated invariants of the view. unlinked : bool[indexed], rows that no link may name."""
    graph = view.graph
    n = view.indexed
    found: list[str] = []
    if n == 0:
        return found
    levels = graph.levels[:n]
    rows = np.arange(n)
    found += _links("layer 0", rows, graph.links[:n], n, unlinked)
    if (graph.links[:n] >= n).any():
        return found  # the rest would read past the arrays
    for layer in range(1, int(levels.max()) + 1):
        high = rows[levels >= layer]
        table = graph.upper[graph.slot[high] + layer - 1]
        found += _links(f"layer {layer}", high, table, n, unlinked)
        low = (table >= 0) & (levels[np.clip(table, 0, n - 1)] < layer)
        if low.any():
            found.append(f"layer {layer}: {int(low.sum())} links to rows that are not on this layer")
    found += _entry(view, levels, unlinked)
    found += _reachable(graph, view, unlinked)
    found += _codes(view)
    return found


def _links(
    where: str, rows: NDArray[np.int64], table: NDArray[np.int32], n: int, unlinked: NDArray[np.bool_]
) -> list[str]:
    found = []
    used = table >= 0
    if (used[:, 1:] & ~used[:, :-1]).any():
        found.append(f"{where}: links after the end of a row")
    if (table >= n).any():
        found.append(f"{where}: {int((table >= n).sum())} links past the last indexed row")
        return found
    if (used & (table == rows[:, None])).any():
        found.append(f"{where}: rows that link to themselves")
    ordered = np.sort(table, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        found.append(f"{where}: rows that link twice to one row")
    lost = used & unlinked[np.clip(table, 0, n - 1)] & ~unlinked[rows][:, None]
    if lost.any():
        found.append(f"{where}: {int(lost.sum())} links from linked rows to unlinked dead ones")
    return found


def _entry(view: GraphView, levels: NDArray[np.int8], unlinked: NDArray[np.bool_]) -> list[str]:
    linked = ~unlinked
    if not linked.any():
        return [] if view.entry < 0 else ["entry point set although no row is linked"]
    if view.entry < 0 or view.entry >= view.indexed or unlinked[view.entry]:
        return [f"entry point {view.entry} is not a linked row"]
    if view.level != levels[view.entry] or view.level < levels[linked].max():
        return [f"entry point {view.entry} has level {levels[view.entry]}, the graph has {levels[linked].max()}"]
    return []


def unreachable(graph: Graph, indexed: int, entry: int, unlinked: NDArray[np.bool_]) -> int:
    """How many linked rows no path on layer 0 leads to from the entry point."""
    if entry < 0:
        return int((~unlinked).sum())
    parent = np.full(indexed, -1, np.int32)
    queue = np.empty(indexed, np.int32)
    parent[entry] = entry
    queue[0] = entry
    repair.bfs(queue, 0, 1, graph.links, parent)
    return int(((parent < 0) & ~unlinked).sum())


def _reachable(graph: Graph, view: GraphView, unlinked: NDArray[np.bool_]) -> list[str]:
    lost = unreachable(graph, view.indexed, view.entry, unlinked)
    return [f"{lost} linked rows are unreachable"] if lost else []


def _codes(view: GraphView) -> list[str]:
    """Codes of a sample, spread over the rows, against encoding them again: of rows that live, since the place of
    others may have been given back.
    """
    graph = view.graph
    picked = evenly_spaced(view.indexed, _SAMPLE)
    picked = picked[view.arrays.living(picked)]
    wrong = int(graph_codes.recoded_differs(graph, view.arrays, view.metric, picked).sum())
    return [f"{wrong} of {len(picked)} sampled rows have codes that differ from encoding them"] if wrong else []
