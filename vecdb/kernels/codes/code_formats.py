"""What a kernel does with a code, by the code's format, which is chosen when the kernel is compiled.

A kernel is handed `blocks`, a tuple as long as a code has blocks of 64 bytes, and the type of its elements is the
format:

    int64     8-bit integers, one scale for all rows          sq8.py
    int8      8-bit integers, rotated, with a scale a row     rotated_codes.py
    int16     16-bit integers, rotated, with a scale a row    rotated_codes.py
    float32   the vectors as float32                          float_codes.py
    uint64    vectors of bits                                 bit_codes.py

    probe = encode_query(...) or code_as_query(...)     fills query8 and query16, which only these functions understand
    code_distance(..., probe, ...)                      int32, whose order is the order of distances

A format that a collection does not use is not compiled for it.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from vecdb.kernels.codes import bit_codes, float_codes, rotated_codes, sq8
from vecdb.kernels.compile import INLINED_OPTIONS, PART_OPTIONS
from vecdb.kernels.primitives.dot_products import dot_codes, dot_words
from vecdb.kernels.primitives.float_products import float_dot, square_distance
from vecdb.kernels.primitives.topk import ordered_bits


def code_distance(codes, bias, row, query8, query16, probe, blocks):
    """Distance of one row to the query, int32. probe : what `encode_query` or `code_as_query` made of the query."""


def encode_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    """Make one query (float32[dim]) comparable with codes. Returns its probe.

    parameters, scale : of the quantizer.   query8 : int8[64 * blocks], query16 : int16[64 * blocks], and twice that
    where codes are rotated; both are filled.
    """


def code_as_query(codes, bias, row, kind, query8, query16, blocks):
    """Take a stored row as the query. Returns its probe.

    kind : of the distances (float_codes.py): PRODUCTS (the caller compares with an empty bias), SQUARES wherever rows
    are compared by l2, or, of rotated codes alone, ANGLES.
    """


def _chosen(blocks, sq8_way, int8_way, int16_way, float32_way, bits_way):
    ways = {
        types.int64: sq8_way, types.int8: int8_way, types.int16: int16_way, types.float32: float32_way,
        types.uint64: bits_way,
    }  # fmt: skip
    return ways[blocks.dtype]


@overload(code_distance, jit_options=INLINED_OPTIONS)
def _code_distance(codes, bias, row, query8, query16, probe, blocks):
    return _chosen(blocks, _sq8_distance, _int8_distance, _int16_distance, _float32_distance, _bits_distance)


@overload(encode_query, jit_options=PART_OPTIONS)
def _encode_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    return _chosen(
        blocks, _encode_sq8_query, _encode_int8_query, _encode_int16_query, _encode_float32_query, _encode_bits_query
    )


@overload(code_as_query, jit_options=PART_OPTIONS)
def _code_as_query(codes, bias, row, kind, query8, query16, blocks):
    return _chosen(blocks, _sq8_as_query, _int8_as_query, _int16_as_query, _float32_as_query, _bits_as_query)


# -- 8 bits, one scale -----------------------------------------------------------------------------


def _sq8_distance(codes, bias, row, query8, query16, probe, blocks):
    d = probe[0] - np.int32(2) * dot_codes(codes, row, query8, query16, blocks)
    if len(bias):
        own = bias[row]
        d += own if own >= sq8.FAR_BIAS else own >> probe[1]
    return d


def _encode_sq8_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    return sq8.encode_query(query, parameters, scale, metric, bias_used, query8, query16)


def _sq8_as_query(codes, bias, row, kind, query8, query16, blocks):
    constant = sq8.code_as_query(codes, row, query8, query16)
    if len(bias):
        constant += bias[row]
    return constant, np.int32(0)


# -- rotated, a scale a row ------------------------------------------------------------------------


def _int8_distance(codes, bias, row, query8, query16, probe, blocks):
    dot = dot_codes(codes, row, query8, query16, blocks) - np.int32(128) * probe[3]
    return ordered_bits(rotated_codes.distance(codes, row, dot, probe))


def _int16_distance(codes, bias, row, query8, query16, probe, blocks):
    return ordered_bits(rotated_codes.distance(codes, row, dot_words(codes, row, query8, blocks), probe))


def _encode_int8_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    return rotated_codes.encode_query(query, parameters, scale, metric, False, query8, query16)


def _encode_int16_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    return rotated_codes.encode_query(query, parameters, scale, metric, True, query8, query16)


def _int8_as_query(codes, bias, row, kind, query8, query16, blocks):
    return rotated_codes.code_as_query(codes, row, kind, False, query8, query16)


def _int16_as_query(codes, bias, row, kind, query8, query16, blocks):
    return rotated_codes.code_as_query(codes, row, kind, True, query8, query16)


# -- float32 ---------------------------------------------------------------------------------------


def _float32_distance(codes, bias, row, query8, query16, probe, blocks):
    if probe[0] == float_codes.PRODUCTS:
        return ordered_bits(np.float32(0.0) - float_dot(codes, row, query8, blocks))
    return ordered_bits(square_distance(codes, row, query8, blocks))


def _encode_float32_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    return float_codes.encode_query(query, parameters, scale, metric, query8)


def _float32_as_query(codes, bias, row, kind, query8, query16, blocks):
    return float_codes.code_as_query(codes, row, kind, query8)


# -- bits ------------------------------------------------------------------------------------------


def _bits_distance(codes, bias, row, query8, query16, probe, blocks):
    return bit_codes.distance(codes, bias, row, query8, probe, blocks)


def _encode_bits_query(query, parameters, scale, metric, bias_used, query8, query16, blocks):
    return bit_codes.encode_query(query, query8)


def _bits_as_query(codes, bias, row, kind, query8, query16, blocks):
    return bit_codes.code_as_query(codes, bias, row, query8)
