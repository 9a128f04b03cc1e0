"""A Curator index as one sealed file, and back. sealed_file.py draws the file.

magic    := "VDBCURA\\x01"
header   := {version, kind, metric, dtype, dim, leaf_rows, indexed_rows, sequence, built_rows, sieve_slack, graph, and
             those of the quantizer (stored_quantizer.py)}
             sieve_slack: the slack of the one-bit filter, -1 without a filter
             graph: whether a file with a companion graph lies beside this one (companion_graph.py)
sections : far, codes, bias, lines, center, filter_signs, rows_of, head_codes, group_codes, group_ends, leaf_ends,
           leaf_spreads, group_spreads, and those of the quantizer

version is 1 where the codes that searches compare are the tree's own, else 2, which programs that know nothing else
refuse. 2 has the header {outside, own_scale, own_trained_rows} and the section own_mean, of the tree's codes. In 1
filter_signs is called signs.

Rows behind the tree order are not in the file: the index encodes them again when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads, bias_of
from vecdb.index.common import sealed_file, stored_quantizer
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.curator.one_bit_filter import OneBitFilter
from vecdb.index.curator.tree_order import CodeArrays, TreeOrderedCodes, identity, mean_square
from vecdb.kernels.primitives.distance import METRIC_CODES

MAGIC = b"VDBCURA\x01"
VERSION = 1
APART = 2
_NONE = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class CuratorState:
    """What a Curator index is made from again.

    order : None as long as no row is in a tree.   removed : deletions up to this sequence were taken note of.
    built_rows : rows from which the tree was grown.   has_graph : there is a companion graph with a file of its own.
    """

    order: TreeOrderedCodes | None
    removed: int
    built_rows: int
    has_graph: bool = False


def write(path: Path, facts: dict[str, Any], state: CuratorState) -> int:
    """Write the rows that are in tree order. Returns the file's size in bytes. facts : see `read`."""
    order = state.order
    assert order is not None
    n, quantiser, heads, bit_filter = order.indexed, order.quantiser, order.heads, order.bit_filter
    own = order.own_space
    header = {
        "version": VERSION if own is None else APART, **facts, "graph": state.has_graph, "indexed_rows": n,
        "sequence": state.removed, "built_rows": state.built_rows, **stored_quantizer.header_of(quantiser),
        "sieve_slack": bit_filter.slack if bit_filter is not None else -1.0,
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {
        "far": order.far[order.far < n], "codes": order.codes[:n], "bias": order.bias[:n],
        "lines": order.lines[:n], "center": bit_filter.center if bit_filter is not None else _NONE,
        _signs(own): bit_filter.signs if bit_filter is not None else _NONE, "rows_of": order.rows_of[:n],
        "head_codes": heads.codes, "group_codes": heads.group_codes, "group_ends": heads.group_ends,
        "leaf_ends": order.leaf_ends, "leaf_spreads": order.leaf_spreads, "group_spreads": order.group_spreads,
        **stored_quantizer.sections_of(quantiser),
    }  # fmt: skip
    if own is not None:
        header |= {"outside": order.outside, "own_scale": own.scale, "own_trained_rows": own.trained_rows}
        arrays["own_mean"] = own.mean
    return sealed_file.write(path, MAGIC, header, arrays)


def read(path: Path, facts: dict[str, Any], capacity: int) -> CuratorState:
    """The state in a file, with room for `capacity` rows, and for all that are in the file.

    facts : kind, metric, dtype, dim and leaf_rows that the file must have been written with.
    Raises Corruption when the file is damaged or was written with other facts.
    """
    header, found = sealed_file.read(path, MAGIC, VERSION, APART)
    sealed_file.check_header(path, header, facts)
    n, metric = header["indexed_rows"], header["metric"]
    capacity = max(capacity, n)
    own = None
    if header["version"] == APART:
        own = ScalarQuantizer(np.array(found["own_mean"]), header["own_scale"], header["own_trained_rows"], False)
    quantiser = stored_quantizer.read(path, header, found)
    bit_filter = None
    if header["sieve_slack"] >= 0.0:
        center, signs = np.array(found["center"]), np.array(found[_signs(own)])
        weight = 0.0 if metric == "ip" else 1.0
        bit_filter = OneBitFilter(center, signs, header["sieve_slack"], metric == "cosine", weight)
    coded = CodeArrays.reserve(capacity, quantiser, bit_filter, METRIC_CODES[metric])
    coded.codes[:n] = found["codes"]
    coded.bias[:n] = found["bias"]
    coded.lines[:n] = found["lines"]
    rows_of, slots_of = identity(capacity), identity(capacity)
    rows_of[:n] = found["rows_of"]
    slots_of[found["rows_of"]] = np.arange(n, dtype=np.uint32)
    far = slots_of[found["far"]].astype(np.int32)
    stored_quantizer.put_far_behind(coded.bias, far, quantiser.flat_below(METRIC_CODES[metric]))
    small = {name: np.array(found[name]) for name in found if name not in ("codes", "bias", "lines", "rows_of")}
    heads = Heads(
        small["head_codes"], bias_of(small["head_codes"]), small["group_codes"], bias_of(small["group_codes"]),
        small["group_ends"],
    )  # fmt: skip
    order = TreeOrderedCodes(
        quantiser, own, coded.codes, coded.bias, coded.lines, bit_filter, rows_of, slots_of, heads, small["leaf_ends"],
        small["leaf_spreads"], small["group_spreads"], small["far"], n, mean_square(coded, n),
        header.get("outside", 0),
    )  # fmt: skip
    return CuratorState(order, header["sequence"], header["built_rows"], bool(header.get("graph")))


def _signs(own: ScalarQuantizer | None) -> str:
    """The section with the signs of the one-bit filter."""
    return "signs" if own is None else "filter_signs"
