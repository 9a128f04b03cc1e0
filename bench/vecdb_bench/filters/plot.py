"""The plot: latency over the share that matches, a panel for each correlation, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vecdb
from vecdb_bench.filters.plan import CORRELATIONS

THEMES = {"light": ("#24292f", "#d0d7de"), "dark": ("#e6edf3", "#30363d")}  # text, lines of the grid
_COLORS = {
    "vecdb": "#d1242f", "vecdb, new filters": "#f0883e", "hnswlib": "#1f77b4", "faiss-hnsw": "#2ca02c",
    "faiss-flat": "#8c9a2b", "lancedb": "#9467bd", "zvec": "#17a2b8", "qdrant-edge": "#8c6d5a",
    "qdrant-edge-acorn": "#b58a72",
}  # fmt: skip
_TITLES = {"independent": "anywhere", "near": "near the query", "far": "far from the query"}


def plot(result: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw the peers of a result as PATH-light.svg and PATH-dark.svg."""
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise vecdb.Unavailable("plots need matplotlib: pip install 'vecdb-engine[bench]'") from error
    files = []
    for theme, (ink, grid) in THEMES.items():
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        panels = figure.subplots(1, len(CORRELATIONS), sharey=True)
        for axes, correlation in zip(panels, CORRELATIONS, strict=True):
            _panel(axes, result["peers"]["points"], correlation, ink, grid)
        panels[0].set_ylabel("one search, us", color=ink)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, labelcolor=ink)
        file = path.with_name(f"{path.name}-{theme}.svg")
        file.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vecdb"}):
            figure.savefig(file, metadata={"Date": None})
        files.append(file)
    return files


def _panel(axes: Any, points: Any, correlation: str, ink: str, grid: str) -> None:
    for name in dict.fromkeys(point["engine"] for point in points):
        some = [p for p in points if (p["engine"], p["correlation"]) == (name, correlation)]
        ours = name.startswith("vecdb")
        axes.plot(
            [p["percent"] for p in some], [p["us"] if p["us"] is not None else float("nan") for p in some],
            marker="o", markersize=4 if ours else 3, linewidth=2.4 if ours else 1.2, label=name,
            color=_COLORS.get(name), linestyle="--" if name == "vecdb, new filters" else "-", zorder=3 if ours else 2,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.invert_xaxis()
    axes.set_title(f"matches {_TITLES[correlation]}", color=ink)
    axes.set_xlabel("records that match, %", color=ink)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.patch.set_alpha(0)
    axes.grid(True, color=grid)
    axes.tick_params(colors=ink, which="both")
    for spine in axes.spines.values():
        spine.set_color(grid)
