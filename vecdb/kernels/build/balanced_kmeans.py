"""Balanced k-means over 8-bit codes (kernels/codes/sq8.py): one assignment, one accumulation; the loop is the caller's.

A centroid is int8 per dimension, as `dot_codes` takes a query. The distance of code x' = code - 128 to centroid c is
|c|^2 - 2 x'.c, without the |x'|^2 that is the same for all centroids; a penalty is added to it for a large cluster.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import kernel
from vecdb.kernels.primitives.dot_products import dot_codes


@kernel()
def set_centroids(means, cent8, cent16, constants):
    """Round means (float32[k, dim], in code space: 0 is code 128) to centroids.

    cent8, cent16 : int8, int16[k, >= dim], filled.   constants : int32[k], filled: |c|^2 and the sum that `dot_codes`
    leaves to its caller.
    """
    for c in range(len(means)):
        square = np.int32(0)
        total = np.int32(0)
        for j in range(means.shape[1]):
            x = np.int32(np.floor(means[c, j] + np.float32(0.5)))
            x = min(max(x, np.int32(-127)), np.int32(127))
            cent8[c, j] = x
            cent16[c, j] = x
            square += x * x
            total += x
        constants[c] = square + np.int32(256) * total


@kernel()
def assign(codes, members, cent8, cent16, constants, penalties, labels, blocks):
    """Nearest centroid of each member by distance + penalty; ties go to the lower one. Returns the sum of the
    distances.

    codes : uint8[n, 64 * blocks].   members : int64[m], rows of codes.   cent8, cent16 : int8, int16[k, 64 * blocks].
    constants, penalties : int32[k].   labels : int32[m], filled.   The sum leaves out |x'|^2 of the members.
    """
    total = np.int64(0)
    for i in range(len(members)):
        row = members[i]
        best = np.int64(0)
        best_d = np.int64(1) << np.int64(62)
        plain = np.int64(0)
        for c in range(len(constants)):
            d = np.int64(constants[c] - np.int32(2) * dot_codes(codes, row, cent8[c], cent16[c], blocks))
            if d + penalties[c] < best_d:
                best_d = d + penalties[c]
                best = c
                plain = d
        labels[i] = best
        total += plain
    return total


@kernel()
def accumulate(codes, members, labels, dim, sums, counts):
    """Add each member to its cluster. sums : int64[k, dim] in code space.   counts : int64[k]."""
    for i in range(len(members)):
        code = codes[members[i]]
        label = labels[i]
        counts[label] += 1
        total = sums[label]
        for j in range(dim):
            total[j] += np.int64(code[j]) - np.int64(128)
