"""The sealed file of an HNSW index (sealed_file.py draws the file).

magic   := "VDBHNSW\\x01"
header  := {version, kind, metric, dtype, dim, m, ef_construction, seed, indexed_rows, sequence, entry, level,
            upper_rows, scale, trained_rows, lossless}
sections: mean, far, codes, bias, links, slot, levels, upper
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common import sealed_file
from vecdb.index.contract import RowSource, SealedFile
from vecdb.index.hnsw.graph import Graph, GraphView, ScalarQuantizer, block_count, grown, line_up, upper_room
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import L2, METRIC_CODES

if TYPE_CHECKING:
    from vecdb.index.hnsw.hnsw_index import HnswIndex

MAGIC = b"VDBHNSW\x01"
VERSION = 1


def _facts(config: schema.Hnsw, metric: str, rows: RowSource) -> dict[str, Any]:
    common = sealed_file.facts("hnsw", metric, rows.arrays.vectors)
    return {**common, "m": config.m, "ef_construction": config.ef_construction}


def write(index: HnswIndex, path: Path) -> SealedFile:
    view = index._current() if index._view is not None else None
    n = view.indexed if view is not None else 0
    header: dict[str, Any] = {
        "version": VERSION,
        **_facts(index.config, index.metric, index._rows),
        "seed": index.seed,
        "indexed_rows": n,
        "sequence": index.removed,
        "entry": view.entry if view is not None else -1,
        "level": view.level if view is not None else 0,
        "upper_rows": index._upper_used,
    }
    arrays: dict[str, NDArray[Any]] = {}
    if view is not None:
        graph = view.graph
        quantiser = graph.quantiser
        header.update(scale=quantiser.scale, trained_rows=quantiser.trained_rows, lossless=quantiser.lossless)
        arrays = {
            "mean": quantiser.mean,
            "far": graph.far[graph.far < n],
            "codes": graph.codes[:n],
            "bias": graph.bias[:n],
            "links": graph.links[:n],
            "slot": graph.slot[:n],
            "levels": graph.levels[:n],
            "upper": graph.upper[: index._upper_used],
        }
    written = sealed_file.write(path, MAGIC, header, arrays)
    return SealedFile(written, n, index.removed)


def read(
    cls: type[HnswIndex], path: Path, config: schema.Hnsw, metric: str, rows: RowSource, mapped: bool
) -> HnswIndex:
    header, sections = sealed_file.read(path, MAGIC, VERSION)
    sealed_file.check_header(path, header, _facts(config, metric, rows))
    index = cls(config, metric, rows, seed=header["seed"])
    index.removed = header["sequence"]
    if not sections:
        return index
    n = header["indexed_rows"]
    quantiser = ScalarQuantizer(np.array(sections["mean"]), header["scale"], header["trained_rows"], header["lossless"])
    _install(index, rows, quantiser, sections, n, header["upper_rows"], header["entry"], header["level"], mapped)
    return index


def _install(
    index: HnswIndex,
    rows: RowSource,
    quantiser: ScalarQuantizer,
    sections: dict[str, NDArray[Any]],
    n: int,
    upper_rows: int,
    entry: int,
    level: int,
    mapped: bool,
) -> None:
    arrays = rows.arrays
    m = index.config.m
    capacity = max(arrays.capacity, n)
    blocks = block_count(arrays.vectors.shape[1])
    fresh = Graph.reserve(capacity, blocks, m, len(sections["bias"]) > 0 or (n == 0 and index._metric == L2), quantiser)
    fresh.codes[:n] = sections["codes"]
    if len(fresh.bias):
        fresh.bias[:n] = sections["bias"]
    if mapped:
        graph = fresh.replace(
            **{name: checksums.for_kernels(sections[name]) for name in ("links", "slot", "levels")},
            upper=checksums.for_kernels(sections["upper"]) if upper_rows else fresh.upper,
        )
    else:
        upper = fresh.upper
        if upper_rows > len(upper):
            upper = grown(sections["upper"], upper_room(capacity, m) + upper_rows, upper_rows)
        graph = fresh.replace(upper=upper)
        for name in ("links", "slot", "levels"):
            getattr(graph, name)[:n] = sections[name]
        upper[:upper_rows] = sections["upper"]
    graph = graph.replace(far=np.array(sections["far"]))
    index._upper_used = upper_rows
    index._coded = n
    index._view = GraphView(graph, arrays, METRIC_CODES[index.metric], n, entry, level)


def renumber(index: HnswIndex, mapping: NDArray[np.int64], rows: RowSource) -> HnswIndex:
    """See Hnsw.compact. Links to rows that are gone are dropped and the rest move up; then unreached rows are linked
    again.
    """
    new = type(index)(index.config, index.metric, rows, seed=index.seed)
    new.removed = index.removed
    view = index._view
    if view is None:
        return new
    graph = view.graph
    kept = np.flatnonzero(mapping[: view.indexed] >= 0)
    n = len(kept)
    assert np.array_equal(mapping[kept], np.arange(n)), "mapping must keep the order of rows"
    levels = graph.levels[kept]
    slot = np.where(levels > 0, np.cumsum(levels, dtype=np.int64) - levels, -1).astype(np.int32)
    upper_rows = int(levels.sum(dtype=np.int64))
    upper = np.full((upper_rows, line_up(index.config.m)), -1, np.int32)
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
    level = view.level
    if entry < 0 and n:
        entry = int(levels.argmax())
        level = int(levels[entry])
    _install(new, rows, graph.quantiser, sections, n, upper_rows, entry, level if n else 0, False)
    new.settle()
    return new


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
