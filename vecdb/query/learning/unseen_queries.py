"""Queries to learn from, where nobody has asked any: made from stored rows, and not found more easily than others.

    some rows -> their nearest neighbours -> each row moved as far as its neighbour is, in a random direction
    ip, norms differ                      -> sums of rows with random signs
    integers                              -> besides, the rows themselves and moved by less than a rounding
    lists and trees of other elements     -> besides, the rows themselves, moved by a thousandth

A stored row is a bad query: links of its own lead to it, and from it to its neighbours. Share of the ten nearest that
a beam of 32 misses, measured:

                                         stored   moved   rows that were held back
    100,000 words of GloVe, cosine         .032    .143    .125
    40,000 Gaussian rows, 32 dimensions    .069    .203    .207
    60,000 photos, 128 bytes               .013    .028    .037
    40,000 summaries, cosine               .017    .035    .054

For lists that is so where a moved row is still among the others. Without structure it lies outside of them, and its
neighbours in fewer lists: 6,000 uniform rows of 48 dimensions missed .025 at a width where rows between rows missed
.073. There a stored row, which finds itself and nine others, is as good a query as any: .066.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.sampling import lengths_vary, norms, units
from vecdb.query.learning.width_tuning import Check, QuerySample
from vecdb.schema import BIT_METRICS, SearchParams
from vecdb.state.index_factory import kind_of
from vecdb.state.snapshot import Snapshot

_NEAREST, _NEAREST_WIDTH = 10, 64  # neighbours that are looked for, and how
_NOISE = 1e-3  # of a row's mean element: the least move of each element
_SUMMED_SHARE = 0.1  # of the sample, in one sum
_TURNED_SHARE = 0.02  # of bits, at the least
_ROUNDING = 0.3  # standard deviation
_ROUNDED_MISSES = 2.0  # as many are missed by rows as they were before rounding (measured: 1.6 to 2.4)


def samples(
    snapshot: Snapshot, metric: str, live: NDArray[np.int64], count: int, limit: int, depth: int,
    rng: np.random.Generator, threads: int, check: Check,
) -> list[QuerySample]:  # fmt: skip
    """At most `count` queries of each kind that the data call for, beside some of the rows `live`, with their exact
    answers. limit, depth : see `QuerySample.of`.
    """
    drawn = np.sort(rng.choice(live, min(count, len(live)), replace=False))
    stored = snapshot.generation.rows.arrays.vectors[drawn]
    rows = stored.astype(np.float32)
    varied = metric == "ip" and lengths_vary(rows)
    least = _least_move(rows)

    def sample(queries: NDArray[np.number], misses: float = 1.0) -> QuerySample:
        made = queries.astype(np.float32)
        return QuerySample.of(snapshot, made, limit, threads, depth=depth, misses=misses, check=check)

    if metric in BIT_METRICS:
        return [sample(_turned(stored, _neighbours(snapshot, rows, threads), rng))]
    if varied:
        # By product a stored row is led to by itself, as nothing leads to a query. Sums of rows with random signs have
        # the directions of the data and are near no row (measured on Gaussian rows: the width learned on rows gave .83
        # on other vectors, on these sums .96).
        signs = rng.choice((-1.0, 1.0), (len(rows), len(rows))) * (rng.random((len(rows),) * 2) < _SUMMED_SHARE)
        found = [sample(_moved(rows, least, rng)), sample(signs @ rows)]
    else:
        found = [sample(_beside(rows, _neighbours(snapshot, rows, threads), metric, rng))]
    if stored.dtype.kind in "iu":
        # Where many rows are equal, what is found for a row says nothing about a query beside it (30 tight clusters as
        # bytes: .975 for both together, .92 for queries).
        found += [
            sample(rows[0::2], _ROUNDED_MISSES),
            sample(rows[1::2] + _ROUNDING * rng.standard_normal(rows[1::2].shape), _ROUNDED_MISSES),
        ]
    elif kind_of(snapshot.config).width_parameter == "nprobe":
        found.append(sample(_moved(rows, least, rng), limit / (limit - 1)))
    return found


def _neighbours(snapshot: Snapshot, rows: NDArray[np.float32], threads: int) -> list[NDArray[np.generic]]:
    """Of each row the vectors [<= 10, dim] of neighbours, itself among them."""
    width = {kind_of(snapshot.config).width_parameter: _NEAREST_WIDTH}
    params = SearchParams(**width, threads=threads)  # type: ignore[arg-type]
    found = snapshot.generation.index.search(rows, _NEAREST, snapshot.visibility, params, None)
    vectors = snapshot.generation.rows.arrays.vectors
    return [vectors[found.rows[q, : found.counts[q]]] for q in range(len(rows))]


def _beside(
    rows: NDArray[np.float32], near: list[NDArray[np.generic]], metric: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    if metric == "cosine":
        rows, near = units(rows), [units(some.astype(np.float32)) for some in near]
    away = [_nearest_other(norms(some.astype(np.float32) - row)) for some, row in zip(near, rows, strict=True)]
    return _moved(rows, np.maximum(_least_move(rows), away), rng)


def _least_move(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far a row is moved at the least: what lies at equal distances from it does so no more."""
    return np.asarray(_NOISE * np.abs(rows).mean(axis=1) * np.sqrt(rows.shape[1]), np.float32)


def _moved(rows: NDArray[np.float32], far: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each row moved so far in a random direction."""
    directions = units(rng.standard_normal(rows.shape, np.float32))
    return np.asarray(rows + far[:, None] * directions, np.float32)


def _turned(rows: NDArray[np.uint8], near: list[NDArray[np.generic]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Packed bits of which as many are turned over as differ from the nearest neighbour's, or a few."""
    bits = 8 * rows.shape[1]
    apart = [_nearest_other(np.bitwise_count(some ^ row).sum(axis=1)) for some, row in zip(near, rows, strict=True)]
    share = np.maximum(_TURNED_SHARE, np.array(apart) / bits)
    return rows ^ np.packbits(rng.random((len(rows), bits)) < share[:, None], axis=1)


def _nearest_other(distances: NDArray[np.number]) -> float:
    """The least of the distances that is not 0, which copies have; 0 where there is none."""
    others = distances[distances > 0]
    return float(others.min()) if len(others) else 0.0
