"""Recall against rate: the points of a sweep, and the rate at a recall between two of them.

A point is (recall, queries per second). The rate between two points is interpolated on its logarithm, since a sweep's
rates fall by factors; a recall that the sweep did not reach has no rate (None). A recall below the sweep's
lowest has the rate of the fastest point, which reaches more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

targets = (0.90, 0.95, 0.99)
Point = tuple[float, float]


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other point exceeds in both recall and rate, by rising recall."""
    best: list[Point] = []
    for recall, rate in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not best or rate > best[-1][1]:
            best.append((recall, rate))
    return best[::-1]


def rate_at(points: Sequence[Point], recall: float) -> float | None:
    """Queries per second at `recall`, or None where the sweep stays below it."""
    edge = frontier(points)
    if not edge or recall > edge[-1][0]:
        return None
    if recall <= edge[0][0]:
        return edge[0][1]
    for (low, fast), (high, slow) in itertools.pairwise(edge):
        if low <= recall <= high:
            share = (recall - low) / (high - low)
            return math.exp((1 - share) * math.log(fast) + share * math.log(slow))
    raise AssertionError("a recall within the frontier lies between two of its points")
