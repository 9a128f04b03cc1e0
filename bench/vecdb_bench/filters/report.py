"""Tables of the results."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vecdb_bench.filters.lineup import BITS_READY

Points = Sequence[Mapping[str, Any]]
Rows = Sequence[Mapping[str, Any]]
GRACE_US = 30.0  # on top of the best of scan and walk
_WORST = 12


def tables(found: Mapping[str, Any], recall: float) -> dict[str, Rows]:
    """The tables of every measure in `found`."""
    shown: dict[str, Rows] = {}
    if "cells" in found:
        shown |= _cells(found["cells"], recall)
    if "peers" in found:
        shown |= _peers(found["peers"])
    if "bitmaps" in found:
        bits = found["bitmaps"]
        shown[f"filters alone, {bits['rows']:,} records, each new: count(filter)"] = bits["cold"]
        shown["a repeated filter adds to a search"] = [{"us": bits["repeated_adds_us"]}]
    return shown


def by_best(points: Points, recall: float) -> list[dict[str, Any]]:
    """The default search of each cell of the graph by the best way that reaches the recall, which has 30 us more."""
    cells: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for point in points:
        if point["kind"] == "hnsw":
            key = point["correlation"], point["shape"], point["parts"], point["limit"]
            cells.setdefault(key, {})[point["way"]] = point
    found = []
    for ways in cells.values():
        default = ways["default"]
        others = [one for way, one in ways.items() if way != "default" and one["recall"] >= recall]
        best = min(others, key=lambda one: one["us"], default=default)
        names = ("correlation", "shape", "percent", "limit", "recall", "us", "fresh_us")
        found.append(
            {name: default[name] for name in names}
            | {"best": best["way"], "best us": best["us"], "by best + 30": default["us"] / (best["us"] + GRACE_US)}
        )
    return found


def _cells(points: Points, recall: float) -> dict[str, Rows]:
    default = [point for point in points if point["way"] == "default"]
    answers = []
    for kind, limit in itertools.product(_each(default, "kind"), _each(default, "limit")):
        some = [point for point in default if (point["kind"], point["limit"]) == (kind, limit)]
        low = min(some, key=lambda point: point["recall"])
        answers.append(
            {
                "kind": kind, "limit": limit, "cells": len(some), "wrong answers": sum(p["faults"] for p in some),
                "recall, mean": float(np.mean([p["recall"] for p in some])), "least": low["recall"],
                f"cells below {recall}": sum(p["recall"] < recall for p in some),
                "where least": f"{low['correlation']}, {low['shape']}, {low['percent']:g} %",
            }
        )  # fmt: skip
    shown: dict[str, Rows] = {"answers by default": answers, "latency by default, limit 10, us": _latency(default)}
    ratios = by_best(points, recall)
    if ratios:
        values = [one["by best + 30"] for one in ratios]
        shown["Hnsw by the best of exact scan, scan of codes and all widths, + 30 us"] = [
            {"limit": limit, "cells": len(some), "mean": float(np.mean(some)), "largest": max(some)}
            for limit in (*_each(ratios, "limit"), "all")
            for some in [[v for v, one in zip(values, ratios, strict=True) if limit in ("all", one["limit"])]]
        ]
        worst = sorted(ratios, key=lambda one: -one["by best + 30"])[:_WORST]
        shown["its worst cells"] = [one | {"percent": f"{one['percent']:g}"} for one in worst]
    return shown


def _latency(default: Points) -> Rows:
    """Medians over shapes: with filters that repeat, and that are new."""
    rows = []
    limit = 10 if any(point["limit"] == 10 for point in default) else default[0]["limit"]
    for parts, correlation in itertools.product(_each(default, "parts"), _each(default, "correlation")):
        row: dict[str, Any] = {"percent": f"{100 / parts:g}", "where": correlation}
        for kind in _each(default, "kind"):
            wanted = (parts, correlation, kind, limit)
            some = [p for p in default if (p["parts"], p["correlation"], p["kind"], p["limit"]) == wanted]
            row[kind] = float(np.median([p["us"] for p in some]))
            row[f"{kind}, new"] = float(np.median([p["fresh_us"] for p in some]))
        rows.append(row)
    return rows


def _peers(found: Mapping[str, Any]) -> dict[str, Rows]:
    points = found["points"]
    rows, ratios = [], []
    for parts, correlation in itertools.product(_each(points, "parts"), _each(points, "correlation")):
        some = {p["engine"]: p for p in points if (p["parts"], p["correlation"]) == (parts, correlation)}
        about = {"percent": f"{100 / parts:g}", "where": correlation}
        row, ratio = dict(about), dict(about)
        for name, point in some.items():
            row[name] = _point(point)
            if not name.startswith("vecdb"):
                ours = some["vecdb" if name in BITS_READY else "vecdb, new filters"]["us"]
                ratio[name] = "none" if point["us"] is None else f"{point['us'] / ours:.2f}"
        rows.append(row)
        ratios.append(ratio)
    shown: dict[str, Rows] = {
        f"one keyword, limit {found['limit']}, us (width, or the best recall)": _filled(rows),
        "times vecdb's; of lancedb, zvec and qdrant-edge vecdb's with new filters": _filled(ratios),
    }
    if found["failed"]:
        shown["failed"] = [{"peer": name, "why": why} for name, why in found["failed"].items()]
    return shown


def _point(point: Mapping[str, Any]) -> str:
    if point["us"] is None:
        return f"none ({point['recall']:.2f})"
    width = point["width"]
    return f"{point['us']:.0f} ({width})" if width and width > 1 else f"{point['us']:.0f} ({point['recall']:.3f})"


def _filled(rows: list[dict[str, Any]]) -> Rows:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "failed") for name in names} for row in rows]


def _each(points: Points, name: str) -> list[Any]:
    return list(dict.fromkeys(point[name] for point in points))
