"""Codes of vectors of bits: their bytes, padded with zeros to 64 * blocks, which no distance counts.

    hamming   d = bits that differ, int32
    jaccard   1 - |a and b| / |a or b|, float32 whose bits are ordered as int32; two vectors without a bit are equal
              |a and b| = (|a| + |b| - d) / 2,  |a or b| = (|a| + |b| + d) / 2

Under jaccard the bias of a row is |a|, so that a row is read once, 64 bits at a time; under hamming none is kept. Codes
say all that vectors do: there is no measuring and no far row. A probe is (bits of the query, 0).
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import inlined, kernel, part
from vecdb.kernels.primitives.bit_products import differing_bits, popcount
from vecdb.kernels.primitives.distance import jaccard_of
from vecdb.kernels.primitives.topk import ordered_bits


@kernel()
def encode(vectors, first, stop, codes, bias):
    """Encode rows [first, stop). vectors : uint8[n, bytes].   codes : uint8[n, 64 * blocks], 64 * blocks >= bytes.
    bias : int32[n], or int32[0] where none is kept.
    """
    for row in range(first, stop):
        stored, code = vectors[row], codes[row]
        count = np.int32(0)
        for j in range(len(stored)):
            code[j] = stored[j]
            count += popcount(np.int32(stored[j]))
        for j in range(len(stored), len(code)):
            code[j] = np.uint8(0)
        if len(bias):
            bias[row] = count


@part()
def encode_query(query, query8):
    """Write one query, float32[bytes] of whole numbers from 0 to 255, as a code. Returns its probe."""
    count = np.int32(0)
    for j in range(len(query)):
        byte = np.int32(query[j])
        query8[j] = np.int8(byte)
        count += popcount(byte & np.int32(255))
    for j in range(len(query), len(query8)):
        query8[j] = np.int8(0)
    return count, np.int32(0)


@part()
def code_as_query(codes, bias, row, query8):
    """Take a stored row as the query. Returns its probe."""
    code = codes[row]
    for j in range(len(code)):
        query8[j] = np.int8(code[j])
    return bias[row] if len(bias) else np.int32(0), np.int32(0)


@inlined()
def distance(codes, bias, row, query8, probe, blocks):
    """How far a row and the query are apart, int32."""
    differing = differing_bits(codes, row, query8, blocks)
    if len(bias) == 0:
        return differing
    both = bias[row] + probe[0]
    return ordered_bits(jaccard_of((both - differing) >> 1, (both + differing) >> 1))
