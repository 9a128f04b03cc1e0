"""The mixture search written again from its definition, over dicts and lists; the database gives only the cells."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from tests.support.corpus import EXACT

TIE = 1e-6


# -- the oracle ------------------------------------------------------------------------------------


def unit(x: Any) -> list[float]:
    length = math.sqrt(sum(float(a) * float(a) for a in x))
    return [float(a) / length for a in x]


def mean_of(pairs: list[tuple[float, list[float]]]) -> list[float]:
    total = sum(weight for weight, _ in pairs)
    return [sum(weight * x[i] for weight, x in pairs) / total for i in range(len(pairs[0][1]))]


def squared(a: Any, b: Any) -> float:
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def dot(a: Any, b: Any) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def distance(query: Any, x: Any, metric: str) -> float:
    if metric == "l2":
        return squared(query, x)
    return 1.0 - dot(unit(query), unit(x)) if metric == "cosine" else -dot(query, x)


class Oracle:
    """records : id -> vector, of those that may be seen.   tied : distances were so close that single precision may
    order them either way.
    """

    def __init__(self, records: dict[Any, Any], centres: Any, metric: str) -> None:
        self.records, self.centres, self.metric = records, centres.tolist(), metric

    def components(self, users: list[list[Any]], most: int, smoothing: float, neighbours: int) -> list[dict[str, Any]]:
        items = [[self._seen(one) for one in user] for user in users]
        weights = [1.0] + [0.0] * (len(users) - 1)
        if smoothing and len(users) > 1:
            alike = self._likeness([mean_of([(1.0, x) for x in one]) for one in items])
            near = sorted(alike, key=lambda user: (-alike[user], user))[:neighbours]
            total = sum(alike[user] for user in near)
            if total:
                weights[0] = 1.0 - smoothing
                for user in near:
                    weights[user] = smoothing * alike[user] / total
        cells: dict[int, list[tuple[float, list[float]]]] = {}
        for user, one in enumerate(items):
            for x in one:
                cell = min(range(len(self.centres)), key=lambda c: (squared(x, self.centres[c]), c))
                cells.setdefault(cell, []).append((weights[user] / len(one), x))
        found = [
            {"cell": cell, "weight": round(sum(w for w, _ in pairs), 9), "mean": mean_of(pairs)}
            for cell, pairs in cells.items()
            if sum(w for w, _ in pairs) > 0
        ]
        return sorted(found, key=lambda one: (-one["weight"], one["cell"]))[:most]

    def _seen(self, one: Any) -> list[float]:
        x = [float(a) for a in self.records[one]]
        return unit(x) if self.metric == "cosine" else x

    def _likeness(self, means: list[list[float]]) -> dict[int, float]:
        others = range(1, len(means))
        if self.metric == "l2":
            far = {user: squared(means[user], means[0]) for user in others}
            return {user: 1.0 / (1.0 + far[user] * len(far) / sum(far.values())) for user in others}
        return {user: max(0.0, dot(unit(means[user]), unit(means[0]))) for user in others}

    def search(
        self, users: list[list[Any]], limit: int, most: int = 8, smoothing: float = 0.0, neighbours: int = 10
    ) -> Any:
        """[(id, component)] in order, and the components."""
        parts = self.components(users, most, smoothing, neighbours)
        self.tied = False
        own = set(users[0])
        for part in parts:
            far = {one: distance(part["mean"], x, self.metric) for one, x in self.records.items() if one not in own}
            part["list"] = sorted(far, key=lambda one: far[one])[:limit]
            ordered = sorted(far.values())[: limit + 1]
            self.tied |= any(b - a <= TIE * max(1.0, abs(b)) for a, b in itertools.pairwise(ordered))
        for part, quota in zip(parts, quotas_by_hand([part["weight"] for part in parts], limit), strict=True):
            part["quota"] = quota
        best: dict[Any, tuple[int, int]] = {}
        for c, part in enumerate(parts):
            for rank, one in enumerate(part["list"]):
                best[one] = min(best.get(one, (rank, c)), (rank, c))
        hits = [[one for one in part["list"] if best[one][1] == c][: part["quota"]] for c, part in enumerate(parts)]
        taken = {one for part in hits for one in part}
        rest = [one for one in parts[0]["list"] if one not in taken][: limit - len(taken)]
        hits[0] = [one for one in parts[0]["list"] if one in {*hits[0], *rest}]
        turns = [((2 * j + 1) / len(part), c, one) for c, part in enumerate(hits) for j, one in enumerate(part)]
        return [(one, c) for _, c, one in sorted(turns, key=lambda turn: turn[:2])], parts


def quotas_by_hand(weights: list[float], limit: int) -> list[int]:
    exact = [round(limit * weight / sum(weights), 7) for weight in weights]
    quotas = [int(one) for one in exact]
    for c in sorted(range(len(weights)), key=lambda c: (-round(exact[c] - quotas[c], 7), c)):
        if sum(quotas) < limit:
            quotas[c] += 1
    return quotas


def centres_of(docs: Any) -> Any:
    snapshot = docs._backend.state.snapshot
    return snapshot.generation.index.centres(snapshot.visibility.row_count)


def agrees(docs: Any, records: dict[Any, Any], users: list[list[Any]], limit: int, **more: Any) -> Any:
    """Search with the first user's positives and the others as histories, and compare with the oracle. None where ties
    let more than one answer be right.
    """
    oracle = Oracle(records, centres_of(docs), docs.metric)
    asked = {"most": more.get("components", 8), "smoothing": more.get("smoothing", 0.0)}
    wanted, parts = oracle.search(users, limit, neighbours=more.get("neighbours", 10), **asked)
    hits = docs.search_mixture(users[0], limit, histories=users[1:] or None, params=EXACT, explain=True, **more)
    if oracle.tied:
        assert len(hits) == len(wanted) and not set(hits.ids.tolist()) & set(users[0])
        return None
    assert list(zip(hits.ids.tolist(), hits.components.tolist(), strict=True)) == wanted
    assert hits.explain["cells"] == [part["cell"] for part in parts]
    assert hits.explain["quotas"] == [part["quota"] for part in parts]
    assert np.allclose(hits.explain["weights"], [part["weight"] for part in parts], atol=1e-8)
    assert hits.explain["sizes"] == np.bincount(hits.components, minlength=len(parts)).tolist()
    true = [distance(parts[c]["mean"], records[one], docs.metric) for one, c in wanted]
    assert np.allclose(hits.distances, true, rtol=1e-3, atol=1e-3)
    return hits
