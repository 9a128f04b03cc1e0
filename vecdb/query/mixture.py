"""kNN-Embed (El-Kishky et al., 2022): diverse neighbours of a user, who is a mixture over the cells of the index.

    items of a user, with smoothing also those of the nearest other users; each has a weight, the sum is 1
      -> cell of each item -> p(c) = weight in cell c, mu(c) = weighted mean   `fit` keeps the strongest components
      -> quota of a component = its share of the limit                         `quotas_of`
      -> a search around each mu(c)                                            `find`, given by the caller
      -> each record counts for the component where its rank is best           `choose`
      -> one list, of which every prefix holds about its share of each component

Pure functions over arrays: float64 inside, ties broken by number, so that equal input gives equal output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.index.contract import Neighbors
from vecdb.query.planner import Plan

Rows = NDArray[np.int64]
_DIGITS = 12  # weights that agree to so many digits are equal, so that the order of a sum does not decide
_TINY = 1e-37


class Mixture(NamedTuple):
    """Components, the strongest first, ties by cell.

    cells : int64[m].   weights : float64[m], p(c|u), above 0.   means : float32[m, dim], of unit norm under cosine.
    """

    cells: Rows
    weights: NDArray[np.float64]
    means: NDArray[np.float32]


class Answer(NamedTuple):
    """found : hits in their order, distances to the mean of their own component.   components : int64[k]."""

    found: Neighbors
    components: Rows
    quotas: Rows
    plan: Plan

    def explain(self, mixture: Mixture) -> dict[str, Any]:
        """Of each component: its cell, weight, quota and hits."""
        sizes = np.bincount(self.components, minlength=len(self.quotas))
        return {
            "cells": mixture.cells.tolist(),
            "weights": mixture.weights.tolist(),
            "quotas": self.quotas.tolist(),
            "sizes": sizes.tolist(),
        }


class Chosen(NamedTuple):
    """Of each hit, in order: its component and its position in that component's list, both int64[k]."""

    components: Rows
    places: Rows


def answer(
    find: Callable[[NDArray[np.float32], int], tuple[Neighbors, Plan]], mixture: Mixture, own: Rows, limit: int
) -> Answer:
    """Search around each mean and divide the limit among the components: min(limit, rows that match without `own`)
    hits.

    find : a search of one snapshot: (queries, limit) -> what was found.   own : rows that are not returned.
    """
    quotas = quotas_of(mixture.weights, limit)
    for depth in (limit + min(limit, len(own)), limit + len(own)):  # of a long history few rows are near one mean
        found, plan = find(mixture.means, depth)
        kept = [
            np.flatnonzero(~np.isin(rows[:count], own))[:limit]
            for rows, count in zip(found.rows, found.counts, strict=True)
        ]
        if all(len(one) == limit or count < depth for one, count in zip(kept, found.counts, strict=True)):
            break
    chosen = choose([rows[at] for rows, at in zip(found.rows, kept, strict=True)], quotas, limit)
    at = np.array([kept[c][place] for c, place in zip(*chosen, strict=True)], np.int64)
    rows, distances = found.rows[chosen.components, at], found.distances[chosen.components, at]
    hits = Neighbors(rows[None], distances[None], np.array([len(rows)]), found.work)
    return Answer(hits, chosen.components, quotas, plan)


def fit(
    users: Sequence[NDArray[np.float32]],
    centres: NDArray[np.float32],
    metric: str,
    components: int,
    smoothing: float,
    neighbours: int,
) -> Mixture:
    """The mixture of users[0]. users : float32[n, dim] each.   centres : of the cells.

    smoothing : share of the weight that goes to the `neighbours` users that are most alike to the first.
    """
    means = np.stack([_wide(items, metric).mean(axis=0) for items in users])
    portion = portions(means, metric, smoothing, neighbours)
    taken = np.flatnonzero(portion > 0.0).tolist()
    items = np.concatenate([_wide(users[user], metric) for user in taken])
    weight = np.concatenate([np.full(len(users[user]), portion[user] / len(users[user])) for user in taken])
    cell = nearest(items, centres)
    summed: NDArray[np.float64] = np.bincount(cell, weight, len(centres)).astype(np.float64)
    total = summed.round(_DIGITS)
    order = np.argsort(-total, kind="stable")[:components]
    kept = order[total[order] > 0.0]
    inside = np.stack([weight[cell == one] @ items[cell == one] / total[one] for one in kept])
    return Mixture(kept, total[kept], _wide(inside, metric).astype(np.float32))


def nearest(items: NDArray[np.float64], centres: NDArray[np.float32]) -> Rows:
    """Cell of each item (float64[n, dim]): the nearest centre by squared l2, ties to the lower number."""
    wide = centres.astype(np.float64)
    squares = np.einsum("ij,ij->i", wide, wide)
    cells: Rows = np.argmin(squares - 2.0 * (items @ wide.T), axis=1)
    return cells


def portions(means: NDArray[np.float64], metric: str, smoothing: float, neighbours: int) -> NDArray[np.float64]:
    """float64[users]: weight of each user in the mixture of the first, 1 in all. Where nobody is alike the first has it
    all. means : mean of each user's items.
    """
    portion = np.zeros(len(means))
    portion[0] = 1.0
    if smoothing == 0.0 or len(means) == 1:
        return portion
    alike = likeness(means, metric)
    order = np.argsort(-np.round(alike, _DIGITS), kind="stable")[:neighbours]
    total = float(alike[order].sum())
    if total > 0.0:
        portion[0] = 1.0 - smoothing
        portion[1 + order] = smoothing * alike[order] / total
    return portion


def likeness(means: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """float64[n - 1]: how alike each other mean is to the first, from 0 to 1.

    Under cosine and ip the cosine, 0 where it is negative. Under l2 1 / (1 + d / D), where d is the squared distance
    and D the mean of all of them, so that the unit does not matter.
    """
    if metric == "l2":
        far = ((means[1:] - means[0]) ** 2).sum(axis=1)
        alike: NDArray[np.float64] = 1.0 / (1.0 + far / max(float(far.mean()), _TINY))
        return alike
    unit = _unit(means)
    cosines: NDArray[np.float64] = np.clip(unit[1:] @ unit[0], 0.0, 1.0)
    return cosines


def quotas_of(weights: NDArray[np.float64], limit: int) -> Rows:
    """Quotas: int64[m], limit in all, in proportion to weights. What rounding down leaves goes to the
    largest remainders; among equal ones to the stronger components, which come first.
    """
    exact = np.round(limit * weights / weights.sum(), _DIGITS - 4)
    quotas: Rows = np.floor(exact).astype(np.int64)
    order = np.argsort(-np.round(exact - quotas, _DIGITS - 4), kind="stable")
    quotas[order[: limit - int(quotas.sum())]] += 1
    return quotas


def choose(lists: Sequence[Rows], quotas: Rows, limit: int) -> Chosen:
    """Choose the hits. lists : for each component the distinct rows that may be returned, nearest first: all that there
    are, or at least `limit`.

    A row counts for the component where its rank is best, at equal ranks for the stronger. Each component takes its
    quota of the rows that count for it. What is missing then comes from the list of the strongest component, whatever
    its rows count for. Each component's hits keep the order of its list, and the lists are interleaved so that every
    prefix of the answer holds about its share of each.
    """
    components = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    places = np.concatenate([np.arange(len(one)) for one in lists])
    best_first = np.lexsort((components, places))
    _, first = np.unique(np.concatenate(lists)[best_first], return_index=True)
    counted = np.sort(best_first[first])  # positions in the joined lists: by component, then by place
    nth = np.arange(len(counted)) - np.searchsorted(components[counted], components[counted])
    taken = counted[nth < quotas[components[counted]]]
    missing = min(limit, len(counted)) - len(taken)
    if missing > 0:
        joined = np.concatenate(lists)
        left = np.flatnonzero(~np.isin(lists[0], joined[taken]))[:missing]
        # the first list is that of the strongest component: a place in it is its position in the joined lists
        taken = np.sort(np.concatenate([left, taken]))
    return _interleaved(components[taken], places[taken])


def _interleaved(components: Rows, places: Rows) -> Chosen:
    """The j-th of a component's s hits comes at (j + 1/2) / s of the length, at ties the stronger component first."""
    sizes = np.bincount(components)
    nth = np.arange(len(components)) - np.searchsorted(components, components)
    order = np.lexsort((components, (2 * nth + 1) / sizes[components]))
    return Chosen(components[order], places[order])


def _wide(vectors: NDArray[np.floating], metric: str) -> NDArray[np.float64]:
    """As float64; under cosine scaled to unit norm."""
    wide = vectors.astype(np.float64)
    return _unit(wide) if metric == "cosine" else wide


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    unit: NDArray[np.float64] = vectors / np.maximum(lengths, _TINY)[:, None]
    return unit
