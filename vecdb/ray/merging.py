"""Answers of shards as one answer."""

from __future__ import annotations

import numpy as np

from vecdb.api.hits import Hits


def merged(limit: int, *parts: Hits) -> Hits:
    """The nearest of each query among what all shards found: by distance, ties in the order of the shards."""
    if len(parts) == 1:
        return parts[0]
    distances = np.concatenate([one.distances for one in parts], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :limit]
    counts = np.minimum(np.sum([one.counts for one in parts], axis=0), limit)
    ids = np.take_along_axis(np.concatenate([one.ids for one in parts], axis=1), order, axis=1)
    return Hits(ids, np.take_along_axis(distances, order, axis=1), counts, parts[0].sequence, parts[0]._metric, False)
