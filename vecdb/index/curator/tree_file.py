"""The sealed file of a Curator index (sealed_file.py draws the file), and the check of what it holds.

magic    := "VDBCURA\\x01"
header   := {version, kind, metric, dtype, dim, leaf_rows, indexed_rows, sequence, built_rows, scale, trained_rows,
             lossless, sieve_slack, graph}      graph: whether there is a file of one beside it (companion_graph.py)
sections : mean, far, codes, bias, lines, center, signs, rows_of, head_codes, group_codes, group_ends, leaf_ends,
           leaf_spreads, group_spreads
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.clustering.cluster_tree import Heads, bias_of
from vecdb.index.common import sealed_file
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.contract import RowSource, SealedFile
from vecdb.index.curator.companion_graph import CompanionGraph
from vecdb.index.curator.one_bit_filter import OneBitFilter
from vecdb.index.curator.tree_order import CodeArrays, TreeOrderedCodes, identity

if TYPE_CHECKING:
    from vecdb.index.curator.curator_index import CuratorIndex

MAGIC = b"VDBCURA\x01"
VERSION = 1
_CHECKED_ROWS = 8_192
_NONE = np.empty(0, np.float32)


def _facts(index: CuratorIndex) -> dict[str, Any]:
    common = sealed_file.facts(index.kind, index.metric, index._rows.arrays.vectors)
    return {**common, "leaf_rows": index.config.leaf_rows}


def write(index: CuratorIndex, path: Path) -> SealedFile:
    view = index._view
    assert view is not None
    order, n = view.order, view.order.indexed
    quantiser, heads, sieve = order.quantiser, order.heads, order.sieve
    graph = index.companion.seal(path)  # first: the header names it
    header = {
        "version": VERSION, **_facts(index), "graph": graph is not None, "indexed_rows": n, "sequence": index.removed,
        "built_rows": index._built_rows, "scale": quantiser.scale, "trained_rows": quantiser.trained_rows,
        "lossless": quantiser.lossless, "sieve_slack": sieve.slack if sieve is not None else -1.0,
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {
        "mean": quantiser.mean, "far": order.far[order.far < n], "codes": order.codes[:n], "bias": order.bias[:n],
        "lines": order.lines[:n], "center": sieve.center if sieve is not None else _NONE,
        "signs": sieve.signs if sieve is not None else _NONE, "rows_of": order.rows_of[:n],
        "head_codes": heads.codes, "group_codes": heads.group_codes, "group_ends": heads.group_ends,
        "leaf_ends": order.leaf_ends, "leaf_spreads": order.leaf_spreads, "group_spreads": order.group_spreads,
    }  # fmt: skip
    written = sealed_file.write(path, MAGIC, header, arrays)
    parts = () if graph is None else ((graph[0].name, graph[1].bytes),)
    return SealedFile(written, n, index.removed, parts)


def read(
    cls: type[CuratorIndex], path: Path, config: schema.Curator, metric: str, rows: RowSource, *, mapped: bool
) -> CuratorIndex:
    from vecdb.index.curator.tree_search import TreeView

    header, found = sealed_file.read(path, MAGIC, VERSION)
    index = cls(config, metric, rows)
    sealed_file.check_header(path, header, _facts(index))
    n = header["indexed_rows"]
    capacity = max(rows.arrays.capacity, n)
    quantiser = ScalarQuantizer(np.array(found["mean"]), header["scale"], header["trained_rows"], header["lossless"])
    sieve = None
    if header["sieve_slack"] >= 0.0:
        weight = 0.0 if metric == "ip" else 1.0
        signs, center = np.array(found["signs"]), np.array(found["center"])
        sieve = OneBitFilter(center, signs, header["sieve_slack"], metric == "cosine", weight)
    coded = CodeArrays.reserve(capacity, header["dim"], quantiser, sieve, biased=metric == "l2")
    coded.codes[:n] = found["codes"]
    coded.bias[:n] = found["bias"]
    coded.lines[:n] = found["lines"]
    rows_of, slots_of = identity(capacity), identity(capacity)
    rows_of[:n] = found["rows_of"]
    slots_of[found["rows_of"]] = np.arange(n, dtype=np.uint32)
    small = {name: np.array(found[name]) for name in found if name not in ("codes", "bias", "lines", "rows_of")}
    heads = Heads(
        small["head_codes"], bias_of(small["head_codes"]), small["group_codes"], bias_of(small["group_codes"]),
        small["group_ends"],
    )  # fmt: skip
    order = TreeOrderedCodes(
        quantiser, coded.codes, coded.bias, coded.lines, sieve, rows_of, slots_of, heads, small["leaf_ends"],
        small["leaf_spreads"], small["group_spreads"], small["far"], n,
    )  # fmt: skip
    index.removed, index._built_rows = header["sequence"], header["built_rows"]
    if header.get("graph"):
        index.companion = CompanionGraph.open(path, metric, rows, mapped=mapped)
    index._coded = index._published = n
    index._view = TreeView(order, rows.arrays, index._metric)
    return index


def violations(index: CuratorIndex) -> list[str]:
    """What does not hold, in words."""
    view = index._view
    assert view is not None
    order, n = view.order, view.order.indexed
    out = []
    rows = order.rows_of[:n]
    if not np.array_equal(np.sort(rows), np.arange(n)) or not np.array_equal(order.slots_of[rows], np.arange(n)):
        out.append("rows and slots are not each other's inverse")
        return out
    tail = np.arange(n, index._coded)
    if not np.array_equal(order.rows_of[tail], tail) or not np.array_equal(order.slots_of[tail], tail):
        out.append("rows behind the order are not in the slots of their own number")
    if len(order.leaf_ends) != order.leaf_count or order.leaf_ends[-1] != n or (order.leaf_lengths() < 0).any():
        out.append(f"leaves end at slot {order.leaf_ends[-1:]}, expected {n} slots in {order.leaf_count} leaves")
    if order.heads.group_ends[-1] != order.leaf_count:
        out.append(f"groups end at leaf {order.heads.group_ends[-1]} of {order.leaf_count}")
    return out + _codes(index, order)


def _codes(index: CuratorIndex, order: TreeOrderedCodes) -> list[str]:
    """Codes, biases and far rows against what encoding gives."""
    far, wrong = [], 0
    arrays = index._rows.arrays
    for first in range(0, index._coded, _CHECKED_ROWS):
        vectors = np.ascontiguousarray(arrays.vectors[first : min(index._coded, first + _CHECKED_ROWS)])
        n = len(vectors)
        coded = CodeArrays.reserve(n, vectors.shape[1], order.quantiser, order.sieve, biased=len(order.bias) > 0)
        far.append(first + coded.encode(vectors, index._metric, 0, n))
        at = order.slots_of[first : first + n]
        differs = (coded.codes != order.codes[at]).any(axis=1) | (coded.lines != order.lines[at]).any(axis=1)
        if len(coded.bias):
            differs |= coded.bias != order.bias[at]
        wrong += int(differs.sum())
    out = [f"{wrong} codes are not what encoding their rows gives"] if wrong else []
    if len(order.panels) and not np.array_equal(order.panels, order.with_panels().panels):
        out.append("panels are not what their lines give")
    if not np.array_equal(np.sort(np.concatenate([*far, np.empty(0, np.int32)])), np.sort(order.far)):
        out.append("far rows are not those that encoding finds")
    return out
