"""Tables of the results, with a line for each engine or each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]
Rows = Sequence[Found]


def tables(found: Found) -> dict[str, Rows]:
    return {
        title: rows
        for name, make in _TABLES.items()
        if name in found
        for title, rows in make(found[name]).items()
    }  # fmt: skip


def _line(name: str, one: Found) -> dict[str, Any]:
    return {
        "what": name,
        "a second": one.get("per_second"),
        "p50 us": one.get("p50_us"),
        "p99 us": one.get("p99_us"),
        "p99.9 us": one.get("p99_9_us"),
        "p99/p50": one["p99_us"] / one["p50_us"] if one.get("p50_us") else None,
        "server us": one.get("server_cpu_us"),
        "load us": one.get("load_cpu_us"),
    }


def _single(found: Found) -> dict[str, Rows]:
    rows = [
        _line(name, one) | {"added us": found["added_us"][name]} for name, one in found["medians"].items()
    ]  # fmt: skip
    return {"one client": rows}


def _rate(found: Found) -> dict[str, Rows]:
    shown: dict[str, Rows] = {}
    for clients, of in found.items():
        shown[f"{clients} clients"] = [
            _line(name, of["medians"][name]) | {"by echo": of["ratio"] if name == "vecdb" else None}
            for name in ("echo", "vecdb")
        ]
        shown[f"{clients} clients, server's microseconds a request"] = [
            {
                "above echo": of["cpu_above_echo_us"],
                "above echo and kernel": of["cpu_above_echo_and_kernel_us"],
                "above echo and embedded call": of["cpu_above_echo_and_call_us"],
                "kernel": of["kernel_us"],
            }
        ]
    return shown


def _pair(title: str, of: Found) -> dict[str, Rows]:
    """A table of what is compared, with the ratio in its title."""
    rows = [_line(name, one) for name, one in of["medians"].items()]
    return {f"{title}: ratio {of['ratio']:.2f}": rows}


def _variants(found: Found) -> dict[str, Rows]:
    rows = [
        {"variant": name, "flags": of["flags"]}
        | {f"{clients} clients": one["ratio"] for clients, one in of.items() if isinstance(one, Mapping)}
        for name, of in found.items()
    ]
    return {"variants: rate by that of the server as it is": rows}


def _peers(found: Found) -> dict[str, Rows]:
    shown: dict[str, Rows] = {}
    for name, of in found.items():
        for clients, one in of.items():
            if clients.isdigit():
                shown |= _pair(f"{name} at recall {of['recall']:.3f}, {clients} clients", one)
    return shown


def _ingest(found: Found) -> dict[str, Rows]:
    rows = [
        {"what": bring}
        | {f"{name}, rows a second": one["rows_per_second"] for name, one in of["medians"].items()}
        | {"ratio": of["ratio"]}
        for bring, of in found.items()
    ]
    return {"bulk ingest": rows}


def _overload(found: Found) -> dict[str, Rows]:
    return {
        "overload": [_overloaded(name, one) for name, one in found.items()],
        "overload: the server": [
            {"queries": name, "when": when}
            | {figure: one[when][figure] for figure in ("threads", "descriptors")}
            | {"resident MiB": one[when]["resident_bytes"] / 2**20}
            for name, one in found.items()
            for when in ("before", "most", "after")
        ],
    }


def _overloaded(name: str, one: Found) -> dict[str, Any]:
    load, echo, health = one["load"], one["echo"], one["health"]
    return {
        "queries": name,
        "capacity, calls a second": one["capacity"],
        "asked": load["asked"],
        "sent late by ms": load["late_us"] / 1e3,
        "answered": load["n"],
        "by capacity": one["goodput"],
        "p99 ms": load.get("p99_us", 0) / 1e3,
        "refused": ", ".join(f"{code} {count:,}" for code, count in load["refused"].items()),
        "echo answered": echo["n"] / echo["asked"],
        "cores echo and load took": echo["per_second"]
        * (echo.get("server_cpu_us", 0) + echo.get("load_cpu_us", 0))
        / 1e6,
        "health answered": health["n"] / health["asked"],
        "health p99 ms": health.get("p99_us", 0) / 1e3,
    }


def _workers(found: Found) -> dict[str, Rows]:
    """A line for each load: the rate of each server, and that rate by the first one's."""
    rows = [
        {"load": load}
        | {f"{name} workers, queries a second": one["queries_per_second"] for name, one in of["medians"].items()}
        | {f"{name} by the first": ratio for name, ratio in of["ratios"].items()}
        | {f"{name}, p99 ms": one["p99_us"] / 1e3 for name, one in of["medians"].items()}
        for load, of in found.items()
    ]
    return {"workers": rows}


_TABLES: dict[str, Any] = {
    "single": _single,
    "rate": _rate,
    "batch": lambda found: _pair("many queries a call", found),
    "stream": lambda found: _pair("bidirectional streams", found),
    "variants": _variants,
    "peers": _peers,
    "ingest": _ingest,
    "overload": _overload,
    "workers": _workers,
}
