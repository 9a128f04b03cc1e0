"""All rows compared with queries by their codes: how good codes are, whatever index they are for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import float32, float64, int8, int16, int32, int64, uint8, uint64

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.codes.code_formats import code_distance, encode_query
from vecdb.kernels.compile import kernel
from vecdb.kernels.primitives.topk import insert
from vecdb.kernels.primitives.visibility import EVERY_COMMIT, is_deleted


class ScannedCodes(NamedTuple):
    """Codes of consecutive rows, as a search compares them: a layout (array_table.py)."""

    codes: uint8[:, ::1]  # [n, 64 * blocks]
    bias: int32[::1]  # [n], or [0] where a search takes none
    parameters: float32[::1]  # this and scale: of the quantizer
    scale: float64
    metric: int64
    deleted: uint64[::1]  # [rows]
    query8: int8[::1]  # [64 * blocks], scratch
    query16: int16[::1]  # [128 * blocks]


@kernel()
def scan_codes(queries, own, first, stop, table, keys, sizes, blocks):
    """The nearest living rows of [first, stop) to every query, by code, added to those that keys and sizes hold.

    queries : float32[nq, dim].   own : int64[nq], the row that a query is, left out.   table : of a ScannedCodes; its
    codes begin with row `first`.   keys : int64[nq, k + 1], sorted, distance << 32 | row.   sizes : int64[nq], at most
    k.   blocks : of the codes (code_formats.py).
    """
    scanned = layout_of(table, ScannedCodes)
    codes, bias, query8, query16 = scanned.codes, scanned.bias, scanned.query8, scanned.query16
    most = keys.shape[1] - 1
    for i in range(len(queries)):
        probe = encode_query(
            queries[i], scanned.parameters, scanned.scale, scanned.metric, len(bias) > 0, query8, query16, blocks
        )
        best, size = keys[i], sizes[i]
        for row in range(first, stop):
            d = code_distance(codes, bias, row - first, query8, query16, probe, blocks)
            key = (np.int64(d) << 32) | row
            if size >= most and key >= best[size - 1]:
                continue
            if row == own[i] or is_deleted(row, EVERY_COMMIT, scanned.deleted):
                continue
            insert(best, np.int64(min(size, most - 1)), key)
            size = min(size + 1, most)
        sizes[i] = size
