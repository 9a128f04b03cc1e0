"""Tables of the results, one or more for each measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def tables(found: Mapping[str, Any]) -> dict[str, Rows]:
    """The tables of every measure in `found`."""
    shown: dict[str, Rows] = {}
    for name, make in _TABLES.items():
        if name in found:
            shown |= make(found[name])
    return shown


def _search(found: Mapping[str, Any]) -> dict[str, Rows]:
    best = [
        _point(won)
        | {
            "vecdb mean / its": won["mean_by_it"],
            "vecdb p99 / its": won["p99_by_it"],
        }
        for won in found["best"].values()
    ]
    shown: dict[str, Rows] = {
        "best points that reach the recall": best,
        "all points": list(map(_point, found["points"])),
    }
    mine = found["best"].get("vecdb")
    if mine:
        kernel = {f"without the call, {name}": value for name, value in mine["kernel"].items()}
        shown["vecdb"] = [{"recall by tenant, first percentile": mine["recall_by_tenant_p1"]} | kernel]
    return shown


def _point(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"contestant": one["contestant"]} | _figures(one)


def _figures(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "value": "default" if one["value"] is None else f"{one['value']:g}",
        "recall": round(one["recall"], 4),
        "mean us": 1e3 * one["mean_ms"],
        "p50 us": 1e3 * one["p50_ms"],
        "p99 us": 1e3 * one["p99_ms"],
        "p99/mean": one["p99_by_mean"],
    }


def _memory(found: Mapping[str, Any]) -> dict[str, Rows]:
    rows: list[dict[str, Any]] = [
        {
            "contestant": name,
            "opened MiB": sizes["opened"] / 2**20,
            "searched MiB": sizes["searched"] / 2**20,
            "bytes a pair": sizes["searched"] / found["pairs"],
        }
        for name, sizes in found["bytes"].items()
    ]
    ratios = {"bytes a pair above no tenants": found["bytes_by_pair_above_no_tenants"]}
    ratios |= {"by no tenants": found["by_no_tenants"]} | {f"by {name}": ratio for name, ratio in found["by"].items()}
    return {"anonymous memory, all tenants searched": rows, "vecdb's memory": [ratios]}


def _union(found: Mapping[str, Any]) -> dict[str, Rows]:
    ratios = {one["value"]: one["ratio"] for one in found["ratios"]}
    rows = [
        {"asked of": one["questions"]} | _figures(one) | {"roles by alone": ratios[one["value"]]}
        for one in found["points"]
    ]
    return {f"a union of roles and one tenant of its {found['rows']:,.0f} records": rows}


def _growth(found: Mapping[str, Any]) -> dict[str, Rows]:
    rows = [{"records": one["rows"]} | _figures(one) for one in found["points"]]
    latencies = {
        f"mean us, {rows:,} records": 1e3 * ms if ms else None for rows, ms in found["mean_ms_at_recall"].items()
    }
    return {"the same tenants, larger": rows, "at equal recall": [latencies | {"ratio": found["ratio"]}]}


def _sizes(found: Mapping[str, Any]) -> dict[str, Rows]:
    rows = []
    for one in found["points"]:
        row: dict[str, Any] = {"rows of the tenant": one["rows"]}
        for way, shown in one["ways"].items():
            row |= {f"{way}, mean us": 1e3 * shown["mean_ms"], f"{way}, recall": round(shown["recall"], 4)}
        rows.append(row | {"chosen / best": one["chosen_by_best"], "chosen / graph": one["chosen_by_graph"]})
    return {"tenants of many sizes": rows}


def _writes(found: Mapping[str, Any]) -> dict[str, Rows]:
    rows = [
        {
            "write": what,
            "us each": one["us_each"],
            "a second": one["per_second"],
            "call ms, p50": one["call_ms_p50"],
            "call ms, max": one["call_ms_max"],
            "bytes each": one["bytes_each"],
        }
        for what, one in found.items()
    ]
    return {"durable writes": rows}


def _many(found: Mapping[str, Any]) -> dict[str, Rows]:
    return {"idle tenants": [found]}


_TABLES: dict[str, Callable[[Any], dict[str, Rows]]] = {
    "search": _search,
    "memory": _memory,
    "union": _union,
    "growth": _growth,
    "sizes": _sizes,
    "writes": _writes,
    "many": _many,
}
