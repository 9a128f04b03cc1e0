"""How plots look: two themes, a colour and a mark for each library, names at the ends of lines, SVG files.

Text is as large as the plot allows, so that it is read where the picture is 360 pixels wide. The same input gives the
same bytes, with the same version of matplotlib. Colours of names differ from the ground by a contrast of 4.5 or more,
and libraries by their marks and dashes, too, for those who do not tell their colours apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vecdb

WIDTH = 640  # pixels, and points
_TEXT = 17.0
_LEFT = 86  # of the panels
_SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "vecdb", "font.family": "sans-serif", "font.size": _TEXT,
    "axes.spines.top": False, "axes.spines.right": False, "path.simplify": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Theme:
    name: str
    ground: str
    ink: str
    grid: str


THEMES = (Theme("light", "#ffffff", "#1f2328", "#d8dee4"), Theme("dark", "#0d1117", "#e6edf3", "#30363d"))


@dataclass(frozen=True, slots=True)
class Line:
    """How a library is drawn. colors : in each theme.   dashes : of matplotlib."""

    label: str
    colors: tuple[str, str]
    marker: str
    dashes: Any = "-"

    def color(self, theme: Theme) -> str:
        return self.colors[theme.name == "dark"]


_OURS, _BLUE, _GREEN, _PURPLE, _GREY, _YELLOW, _PINK = (
    ("#bf3b00", "#ff9457"), ("#0b5cad", "#6cb6ff"), ("#00705a", "#45d0ae"), ("#7d3c98", "#d3a4ea"),
    ("#57606a", "#adb5bd"), ("#7a5f00", "#e3c75f"), ("#a0305f", "#f5a3c0"),
)  # fmt: skip
_LONG, _SHORT, _MIXED = (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2))
LINES = {
    "vecdb": Line("vecdb", _OURS, "o"),
    "vecdb-codes-on-disk": Line("vecdb, no codes", _OURS, "o", _LONG),
    "vecdb, new filters": Line("vecdb, new filters", _OURS, "o", _SHORT),
    "vecdb, default": Line("vecdb, default", _OURS, "o", _MIXED),
    "hnswlib": Line("hnswlib", _BLUE, "s"),
    "hnswlib-100": Line("hnswlib, one each", _BLUE, "s", _LONG),
    "hnswlib-200": Line("hnswlib, one each", _BLUE, "s"),
    "faiss": Line("faiss", _GREEN, "^"),
    "faiss-sq8": Line("faiss SQ8", _GREEN, "^", _LONG),
    "faiss-hnsw": Line("faiss HNSW", _GREEN, "^"),
    "faiss-flat": Line("faiss flat", _GREEN, "v", _LONG),
    "usearch": Line("usearch", _PURPLE, "D"),
    "diskannpy-rust": Line("DiskANN", _BLUE, "s"),
    "svs": Line("SVS Vamana", _YELLOW, "P"),
    "glass-sq8u": Line("Glass SQ8U", _PINK, "p"),
    "glass-sq4u": Line("Glass SQ4U", _PINK, "p", _LONG),
    "vsag": Line("VSAG HGraph", _BLUE, "h"),
    "vsag-sq8": Line("VSAG SQ8", _BLUE, "h", _LONG),
    "ngt-anng": Line("NGT ANNG", _GREEN, "<"),
    "ngt-onng": Line("NGT ONNG", _GREEN, "<", _LONG),
    "zvec-hnsw": Line("zvec HNSW", _PURPLE, "D", _LONG),
    "lorann": Line("LoRANN", _GREY, ">"),
    "zvec": Line("zvec", _PURPLE, "D"),
    "lancedb": Line("LanceDB", _YELLOW, "P"),
    "lancedb-rq": Line("LanceDB RQ", _YELLOW, "P"),
    "lancedb-hnsw": Line("LanceDB HNSW", _YELLOW, "X", _LONG),
    "qdrant-edge": Line("Qdrant Edge", _PINK, "X"),
    "qdrant-edge-acorn": Line("Qdrant ACORN", _PINK, "X", _LONG),
    "numpy": Line("numpy", _GREY, "v"),
}
_OTHER = Line("", _GREY, "v", _MIXED)


def line_of(name: str) -> Line:
    """How a library is drawn; others than those that are known in grey."""
    return LINES.get(name) or Line(name, _OTHER.colors, _OTHER.marker, _OTHER.dashes)


# -- figures -------------------------------------------------------------------------------------------


Draw = Callable[[Any, Theme], str]  # draws on a figure; returns what it shows, in words


def save(draw: Draw, path: Path, height: float) -> list[Path]:
    """Draw for light and for dark pages, as PATH-light.svg and PATH-dark.svg. height : pixels."""
    files = []
    for theme in THEMES:
        file = path.with_name(f"{path.name}-{theme.name}.svg")
        save_one(draw, file, height, theme)
        files.append(file)
    return files


def save_one(draw: Draw, file: Path, height: float, theme: Theme = THEMES[0]) -> None:
    """Draw into an SVG or a PNG file, as its name says. Raises Unavailable without matplotlib."""
    matplotlib = _matplotlib()
    backend = importlib.import_module(f"matplotlib.backends.backend_{'agg' if file.suffix == '.png' else 'svg'}")
    figure_module = importlib.import_module("matplotlib.figure")
    file.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_SETTINGS):
        figure = figure_module.Figure(figsize=(WIDTH / 72, height / 72), facecolor=theme.ground)
        canvas = getattr(backend, "FigureCanvasAgg" if file.suffix == ".png" else "FigureCanvasSVG")
        canvas(figure)
        words = draw(figure, theme)
        metadata = {"Description": words} | ({} if file.suffix == ".png" else {"Date": None})
        figure.savefig(file, metadata=metadata, dpi=144 if file.suffix == ".png" else 72)


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise vecdb.Unavailable("plots need matplotlib: pip install 'vecdb-engine[bench]'") from error


def panels(figure: Any, above: Sequence[str], theme: Theme, right: float) -> list[Any]:
    """Panels below one another, of the same x axis. above : what stands above each.   right : pixels for names."""
    height = figure.get_figheight() * 72
    edges = {"left": _LEFT / WIDTH, "right": 1 - right / WIDTH, "bottom": 58 / height}
    edges["top"] = 1 - (90 if any(above) else 62) / height
    made = figure.subplots(len(above), 1, sharex=True, squeeze=False, gridspec_kw=edges | {"hspace": 0.2})[:, 0]
    for axes, words in zip(made, above, strict=True):
        axes.set_title(words, color=theme.ink, loc="left", fontsize="medium", pad=6)
        axes.set_facecolor(theme.ground)
        axes.grid(True, color=theme.grid, linewidth=1)
        axes.set_axisbelow(True)
        axes.tick_params(colors=theme.ink, which="both", length=0, pad=6)
        for side in axes.spines.values():
            side.set_color(theme.grid)
    return list(made)


def titles(figure: Any, theme: Theme, title: str, unit: str, below: str) -> None:
    """The title, the unit of the y axis below it, and that of the x axis under the plot."""
    height = figure.get_figheight() * 72
    figure.text(12 / WIDTH, 1 - 24 / height, title, color=theme.ink, fontsize=_TEXT + 2, fontweight="bold")
    figure.text(12 / WIDTH, 1 - 47 / height, unit, color=theme.ink)
    figure.text(_LEFT / WIDTH, 14 / height, below, color=theme.ink)


def draw_line(axes: Any, name: str, x: Sequence[float], y: Sequence[float], theme: Theme) -> None:
    """A library's line; vecdb's are wider and above the others."""
    line, ours = line_of(name), name.startswith("vecdb")
    axes.plot(
        x, y, gid=f"line of {name}", color=line.color(theme), linestyle=line.dashes, linewidth=3.2 if ours else 2,
        marker=line.marker, markersize=7 if ours else 6, markeredgecolor=theme.ground, markeredgewidth=0.8,
        zorder=4 if ours else 3, clip_on=False,
    )  # fmt: skip


def name_ends(axes: Any, ends: Sequence[tuple[str, float, float]], theme: Theme) -> None:
    """Write names to the right of a panel, as high as the lines (name, x, y) end there, none over another."""
    if not ends:
        return
    box = axes.get_window_extent()
    places = [axes.transData.transform((x, y)) for _, x, y in ends]
    gap = _TEXT * 1.16 * axes.figure.dpi / 72
    heights = spread([float(y) for _, y in places], gap, float(box.y0), float(box.y1))
    for (name, _, _), (x, y), height in zip(ends, places, heights, strict=True):
        color, at = line_of(name).color(theme), (height - box.y0) / box.height
        start = ((x - box.x0) / box.width, (y - box.y0) / box.height)
        to = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 2, "shrinkB": 6, "relpos": (0, 0.5)}
        if start[0] < 0.8:  # the line ends early: what leads to its name does not look like more of it
            to |= {"linestyle": (0, (1, 5))}
        axes.annotate(
            line_of(name).label, xy=start, xytext=(1.045, at), xycoords="axes fraction", textcoords="axes fraction",
            va="center", color=color, annotation_clip=False, fontweight="bold" if name == "vecdb" else "normal",
            arrowprops=to,
        )  # fmt: skip


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near `values`, in the same order, `gap` apart or more, within [low, high] where there is room for all."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    groups: list[tuple[float, int]] = []  # middle, how many: places of a group lie `gap` apart
    for at in order:
        groups.append((min(max(values[at], low), high), 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (first, before), (second, after) = groups[-2:]
            count = before + after
            room = gap * (count - 1) / 2
            middle = (first * before + second * after) / count
            groups[-2:] = [(max(min(middle, high - room), low + room), count)]
    places = [middle + gap * (at - (count - 1) / 2) for middle, count in groups for at in range(count)]
    found = [0.0] * len(values)
    for at, place in zip(order, places, strict=True):
        found[at] = place
    return found
