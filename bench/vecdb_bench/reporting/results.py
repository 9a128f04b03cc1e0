"""Results on disk and on screen: one JSON file per run, a plot of recall against rate, tables."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

default_folder = Path("bench-results")
_MODES = {"batch": "one call for all queries", "single": "one call per query"}


def write(result: Mapping[str, Any], folder: Path = default_folder) -> Path:
    """Write a result as JSON under a new name; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = folder / f"{result['benchmark']}-{stamp}.json"
    for number in range(1, 1000):
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(result, file, indent=1, default=_plain)
                file.write("\n")
            return path
        except FileExistsError:
            path = folder / f"{result['benchmark']}-{stamp}-{number}.json"
    raise AssertionError("a thousand results within one second")


def can_plot() -> bool:
    """Whether there is what plots need."""
    try:
        return importlib.util.find_spec("matplotlib") is not None
    except ValueError:  # a module that somebody put in its place
        return False


def plot(result: Mapping[str, Any], path: Path) -> Path:
    """Recall against queries per second, one panel per mode, as PNG. Raises Unavailable without matplotlib."""
    from vecdb_bench.figures import plots, style

    data = result["data"]
    title = f"{data['name']}: {data['rows']:,} x {data['dim']} {data['dtype']}, {data['metric']}"
    by_mode = {words: [p for p in result["points"] if p["mode"] == mode] for mode, words in _MODES.items()}
    panels = {words: points for words, points in by_mode.items() if points}
    clock = result["plan"].get("clock", "wall")  # results that are older have none
    draw = plots.recall_against_rate(panels, title, clock, result["plan"]["limit"], least=0.0)
    style.save_one(draw, path, 60 + 340 * len(panels))
    return path


def show(result: Mapping[str, Any], console: Any) -> None:
    """Print a result's tables on a rich console."""
    kind = result["benchmark"]
    if kind == "run":
        _show_run(result, console)
    else:
        for title, rows in result["tables"].items():
            _print(console, f"{kind}: {title}", rows)
    where = result["machine"]
    features = " ".join(where["features"]) or "no vector features known"
    console.print(f"{where['processor']}, {where['cores']} cores ({features}); kernels {where['kernels']}", style="dim")


def _show_run(result: Mapping[str, Any], console: Any) -> None:
    data, plan = result["data"], result["plan"]
    about = f"{data['name']}: {data['rows']:,} x {data['dim']} {data['dtype']}, {data['metric']}, limit {plan['limit']}"
    builds = [
        {
            "peer": name,
            f"build s, {build['threads']} threads": build["seconds"],
            "anonymous MiB": build["anonymous_bytes"] / 2**20,
            "disk MiB": build["disk_bytes"] / 2**20,
        }
        for name, build in result["builds"].items()
    ]
    _print(console, about, builds)
    if result.get("absent"):
        absent = [f"  {name}: {why}" for name, why in result["absent"].items()]
        console.print("\n".join(["not measured:", *absent]), markup=False, highlight=False)
    for mode in dict.fromkeys(row["mode"] for row in result["summary"]):
        first = next(iter(result["builds"]))
        rows = []
        for row in result["summary"]:
            if row["mode"] != mode:
                continue
            line: dict[str, Any] = {"peer": row["peer"]}
            for name, value in row.items():
                if name.startswith("rate_"):
                    line[f"q/s at {name[5:]}"] = value
                elif name.startswith("ratio_"):
                    line[f"x at {name[6:]}"] = value
            rows.append(line)
        _print(console, f"{mode}: queries per second at recall, and how many times as fast {first} is", rows)


def _print(console: Any, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    if len(rows) == 1:
        single = Table(title=title, title_justify="left", show_header=False)
        for name, value in rows[0].items():
            single.add_row(name.replace("_", " "), _cell(value))
        console.print(single)
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in rows[0] if rows else ():
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
