"""How many lists a query is worth: those that lie about as near as its nearest ones do.

    nprobe -> ratio        a list is read while |q - head|^2 <= ratio * mean of the nearest eight

The ratio is the one by which rows of the collection, taken as queries, would read `nprobe` lists on average. So a query
among many heads reads more of them and a query close to few reads less; at equal recall that is a quarter fewer lists
(measured on 1,000,000 SIFT rows: 24 to 28 % at recalls of 0.90 to 0.98). SPANN (Chen et al., 2021) compares with the
nearest head alone and leaves the ratio to the user.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLES = 64  # rows taken as queries
NEAREST = 8  # heads whose mean distance is the measure; kernels/lists.probe sorts at least as many
LISTS_MAX = 2_048  # heads compared of each sampled row: beyond what they tell, the number asked for is the number read
MOST = 1.5  # times nprobe that one query may read


def most(probes: int, heads: int) -> int:
    """Lists that one query may read where `probes` (at most heads) are wanted on average: just those where they are too
    few to speak of near ones, all there are, or more than a sampled row is compared with.
    """
    width = min(heads, int(MOST * probes))
    return width if NEAREST <= probes < heads and width <= LISTS_MAX else probes


class Probing:
    """Made of the squared distances of sampled rows to their nearest heads, float32[samples, lists], in any order."""

    def __init__(self, nears: NDArray[np.float32]) -> None:
        nears = np.sort(nears, axis=1)
        self._ratios = nears / np.maximum(nears[:, :NEAREST].mean(axis=1, keepdims=True), np.float32(1e-30))
        self._known: dict[int, float] = {}

    def ratio(self, probes: int, width: int) -> float:
        """The ratio for `probes` lists on average, `width` at most."""
        known = self._known.get(probes)
        if known is None:
            within = self._ratios[:, :width].ravel()  # a few heads have come since they were sampled: width may be more
            last = min(probes * len(self._ratios), len(within) - 1)
            known = self._known[probes] = float(np.partition(within, last)[last])
        return known
