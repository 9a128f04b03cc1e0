"""Recall against effort: what a wider search finds, and what it costs. Measured on records of the collection itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb.errors import InvalidArgument
from vecdb.schema import SearchParams

QUERIES_MAX = 100
LIMIT = 10
_WIDTHS = {"ef": (10, 16, 24, 32, 48, 64, 96, 128, 192, 256), "nprobe": (1, 2, 4, 8, 16, 32, 64, 128, 256)}
_ENOUGH = 0.9995  # wider searches are not measured
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Curve:
    """effort : "ef" or "nprobe". points : what `evaluate` returned for each width. usual : the same of a search that
    names none. limit : neighbours of a search; queries : how many were asked.
    """

    effort: str
    points: list[dict[str, Any]]
    usual: dict[str, Any]
    limit: int
    queries: int
    sequence: int


def effort_of(kind: str) -> str | None:
    """Which parameter widens a search of this kind of index; None: every answer is exact."""
    return {"hnsw": "ef", "spann": "nprobe", "curator": "nprobe"}.get(kind)


def sample(
    docs: vecdb.Collection, wanted: int = QUERIES_MAX, *, tenant: str | None = None, walked_max: int = 100_000
) -> NDArray[Any]:
    """Vectors of records, spread evenly over the first `walked_max`. Raises InvalidArgument where there are none."""
    every = max(1, min(docs.count(tenant=tenant), walked_max) // wanted)
    found: list[Any] = []
    seen = 0
    for page in docs.iter(_BATCH, include_vectors=True, tenant=tenant, limit=walked_max):
        found += [record.vector for record in page[(-seen) % every :: every] if record.vector is not None]
        seen += len(page)
        if len(found) >= wanted:
            break
    if not found:
        raise InvalidArgument("no record that was looked at has a vector: there is nothing to measure with")
    return np.stack(found[:wanted])


def measured(
    docs: vecdb.Collection,
    effort: str | None,
    *,
    tenant: str | None = None,
    queries_max: int = QUERIES_MAX,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    sequence: int = 0,
) -> Curve:
    """Evaluate one width after another, until hardly anything is missed."""
    queries = sample(docs, queries_max, tenant=tenant)
    widths = () if effort is None or tenant is not None else _WIDTHS[effort]
    report = progress or (lambda done, total: None)
    report(0, len(widths) + 1)
    usual = docs.evaluate(queries, LIMIT, tenant=tenant, stop=stop)
    points: list[dict[str, Any]] = []
    for at, width in enumerate(widths, 1):
        report(at, len(widths) + 1)
        params = SearchParams(ef=width) if effort == "ef" else SearchParams(nprobe=width)
        points.append({"width": width} | docs.evaluate(queries, LIMIT, params=params, stop=stop))
        if (points[-1]["recall"] or 0) >= _ENOUGH:
            break
    return Curve(effort or "", points, usual, LIMIT, len(queries), sequence)


# -- as a plot ---------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 40
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Plot:
    """Places in a drawing of `width` by `height`. dots : x, y and what a dot is. ticks : place and text."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    line: str
    dots: list[tuple[float, float, str]]
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]
    mark: float | None


def plotted(curve: Curve, default_width: int | None = None) -> Plot | None:
    """Effort from left to right, logarithmic; recall upwards. None where fewer than two widths were measured."""
    known: list[tuple[int, float, dict[str, Any]]] = [
        (point["width"], point["recall"], point) for point in curve.points if point.get("recall") is not None
    ]
    if len(known) < 2:
        return None
    low, high = math.log(known[0][0]), math.log(known[-1][0])
    floor = math.floor(min(recall for _, recall, _ in known) * 10 - 1e-9) / 10
    floor = max(0.0, min(floor, 0.9))

    def x(width: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log(width) - low) / (high - low), 1)

    def y(recall: float) -> float:
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1.0 - (recall - floor) / (1.0 - floor)), 1)

    dots = [
        (x(width), y(recall), f"{curve.effort} {width}: recall {recall:.3f}, {point['latency_ms_p50']:.2f} ms")
        for width, recall, point in known
    ]
    ticks = [floor + (1 - floor) * at / _TICKS for at in range(_TICKS + 1)]
    mark = None
    if default_width and known[0][0] <= default_width <= known[-1][0]:
        mark = x(default_width)
    return Plot(
        _WIDTH, _HEIGHT, _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM,
        " ".join(f"{left},{top}" for left, top, _ in dots), dots,
        [(x(width), str(width)) for width, _, _ in known], [(y(tick), f"{tick:.2f}") for tick in ticks], mark,
    )  # fmt: skip
