"""What a kernel does with a code, by the code's format, which is chosen when the kernel is compiled.

A kernel is handed `blocks`, a tuple as long as a code has blocks of 64 bytes, and the type of its elements is the
format:

    int64     8-bit integers, one scale for all rows       sq8.py
    float32   the vectors as float32                       float_codes.py

    probe = encode_query(...) or code_as_query(...)     fills query8 and query16, which only these functions understand
    code_distance(..., probe, ...)                      int32, whose order is the order of distances

A format that a collection does not use is not compiled for it.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from vecdb.kernels.codes import float_codes, sq8
from vecdb.kernels.compile import INLINED_OPTIONS, PART_OPTIONS
from vecdb.kernels.primitives.dot_products import dot_codes
from vecdb.kernels.primitives.float_products import float_dot, square_distance
from vecdb.kernels.primitives.topk import ordered_bits


def code_distance(codes, bias, row, query8, query16, probe, blocks):
    """Distance of one row to the query, int32. probe : what `encode_query` or `code_as_query` made of the query."""


def encode_query(query, mean, scale, metric, bias_used, query8, query16, blocks):
    """Make one query (float32[dim]) comparable with codes; query8 and query16 (int8, int16 [64 * blocks]) are filled.
    Returns its probe.
    """


def code_as_query(codes, bias, row, by_product, query8, query16, blocks):
    """Take a stored row as the query: of distances by inner product (the caller compares with an empty bias), else by
    l2 wherever rows are compared by it. Returns its probe.
    """


@overload(code_distance, jit_options=INLINED_OPTIONS)
def _code_distance(codes, bias, row, query8, query16, probe, blocks):
    return _sq8_distance if blocks.dtype == types.int64 else _float_distance


@overload(encode_query, jit_options=PART_OPTIONS)
def _encode_query(query, mean, scale, metric, bias_used, query8, query16, blocks):
    return _encode_sq8_query if blocks.dtype == types.int64 else _encode_float_query


@overload(code_as_query, jit_options=PART_OPTIONS)
def _code_as_query(codes, bias, row, by_product, query8, query16, blocks):
    return _sq8_as_query if blocks.dtype == types.int64 else _float_as_query


def _sq8_distance(codes, bias, row, query8, query16, probe, blocks):
    d = probe[0] - np.int32(2) * dot_codes(codes, row, query8, query16, blocks)
    if len(bias):
        d += bias[row] >> probe[1]
    return d


def _float_distance(codes, bias, row, query8, query16, probe, blocks):
    if probe[0] == float_codes.PRODUCTS:
        return ordered_bits(np.float32(0.0) - float_dot(codes, row, query8, blocks))
    return ordered_bits(square_distance(codes, row, query8, blocks))


def _encode_sq8_query(query, mean, scale, metric, bias_used, query8, query16, blocks):
    return sq8.encode_query(query, mean, scale, metric, bias_used, query8, query16)


def _encode_float_query(query, mean, scale, metric, bias_used, query8, query16, blocks):
    return float_codes.encode_query(query, mean, scale, metric, query8)


def _sq8_as_query(codes, bias, row, by_product, query8, query16, blocks):
    constant = sq8.code_as_query(codes, row, query8, query16)
    if len(bias):
        constant += bias[row]
    return constant, np.int32(0)


def _float_as_query(codes, bias, row, by_product, query8, query16, blocks):
    return float_codes.code_as_query(codes, row, by_product, query8)
