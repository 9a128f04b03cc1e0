"""The plots: rate at a recall, latency at a recall, latency among the records that match a filter.

Each function returns what draws on a figure (style.py), and that returns the points as words, which the SVG keeps as
its description: for who does not see it, and for a test that compares a plot with its data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vecdb_bench.figures.style import Draw, Theme, draw_line, name_ends, panels, titles
from vecdb_bench.reporting import recall_curves

Points = Sequence[Mapping[str, Any]]
Line = list[tuple[float, float]]
_RECALLS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
_WHERE = {"independent": "matches lie anywhere", "near": "near the query", "far": "far from the query"}
FILTERS_TITLE = "Among the records that match a filter"
_RATES = {
    "wall": "queries a second, one thread; higher is better",
    "cpu": "queries a second of processor time; higher is better",
}
_LATENCIES = {
    "wall": "microseconds of a search, one thread; lower is better",
    "cpu": "microseconds of processor time; lower is better",
}
_NINES_MAX = 3.5  # a recall is drawn by the logarithm of what is missing, up to so many nines


def recall_against_rate(
    shown: Mapping[str, Points], title: str, clock: str, limit: int = 10, least: float = 0.85
) -> Draw:
    """shown : points (peer, recall, rate) of each panel, by what stands above it. Of each peer the points that no other
    point of it beats, from recall `least` on.   clock : of the plan, "wall" or "cpu".
    """

    def line(points: Points, name: str) -> Line:
        edge = recall_curves.frontier([(p["recall"], p["rate"]) for p in points if p["peer"] == name])
        return [(recall, rate) for recall, rate in edge if recall >= least]

    return _by_recall(shown, "peer", line, (title, _RATES[clock], f"recall@{limit}"), right=122)


def latency_at_recall(points: Points, title: str, clock: str, limit: int = 10, least: float = 0.85) -> Draw:
    """points : contestant, recall, mean_ms. Of each contestant the points that no other of its own beats."""

    def line(points: Points, name: str) -> Line:
        own = [(p["recall"], 1 / p["mean_ms"]) for p in points if p["contestant"] == name]
        return [(recall, 1e3 / rate) for recall, rate in recall_curves.frontier(own) if recall >= least]

    return _by_recall({"": points}, "contestant", line, (title, _LATENCIES[clock], f"recall@{limit}"), right=182)


def _by_recall(
    shown: Mapping[str, Points],
    key: str,
    line: Callable[[Points, str], Line],
    words: tuple[str, str, str],
    right: float,
) -> Draw:
    """key : of a point, whose line it is on.   words : title, unit of the y axis, unit of the x axis."""

    def draw(figure: Any, theme: Theme) -> str:
        titles(figure, theme, *words)
        made = panels(figure, [*shown], theme, right)
        said, recalls, ends = {}, [], []
        for axes, (above, points) in zip(made, shown.items(), strict=True):
            lines = {name: some for name in _names(points, key) if (some := line(points, name))}
            for name, some in lines.items():
                draw_line(axes, name, [_nines(recall) for recall, _ in some], [y for _, y in some], theme)
                said[f"{name}, {above}" if above else name] = [(f"{recall:.4g}", y) for recall, y in some]
            _log_axis(axes, [y for some in lines.values() for _, y in some])
            recalls += [recall for some in lines.values() for recall, _ in some]
            ends.append([(name, _nines(some[-1][0]), some[-1][1]) for name, some in lines.items()])
        _recall_axis(made[-1], recalls)
        for axes, names in zip(made, ends, strict=True):
            name_ends(axes, names, theme)
        return _said(words, said)

    return draw


def latency_over_share(points: Points, title: str, clock: str) -> Draw:
    """points : engine, correlation, percent, us (None where no width reaches the recall). A panel a correlation."""
    unit = _LATENCIES[clock]
    below = "% that match; a line ends where no width finds enough"

    def draw(figure: Any, theme: Theme) -> str:
        titles(figure, theme, title, unit, below)
        some = [name for name in _WHERE if any(p["correlation"] == name for p in points)]
        said: dict[str, Sequence[tuple[str, float]]] = {}
        made = panels(figure, [_WHERE[where] for where in some], theme, right=176)
        shares = sorted({p["percent"] for p in points}, reverse=True)
        made[-1].set_xscale("log")
        made[-1].set_xticks(shares, [f"{share:g}" for share in shares])
        made[-1].set_xlim(shares[0] * 1.15, shares[-1] / 1.15)
        for axes, where in zip(made, some, strict=True):
            axes.minorticks_off()
            ends = []
            _log_axis(axes, [p["us"] for p in points if p["us"] is not None])
            for name in _names(points, "engine"):
                own = {p["percent"]: p["us"] for p in points if (p["engine"], p["correlation"]) == (name, where)}
                line = [(share, own[share]) for share in shares if own.get(share) is not None]
                if line:
                    draw_line(axes, name, [share for share, _ in line], [us for _, us in line], theme)
                    ends.append((name, *line[-1]))
                said[f"{name}, {where}"] = [(f"{share:g} %", us) for share, us in line]
            name_ends(axes, ends, theme)
        return _said((title, unit, below), said)

    return draw


# -- what they have in common ----------------------------------------------------------------------------


def _nines(recall: float) -> float:
    """Where a recall is drawn: .9 at 1, .99 at 2."""
    return min(-math.log10(max(1 - recall, 1e-9)), _NINES_MAX)


def _recall_axis(axes: Any, recalls: Sequence[float]) -> None:
    low, high = min(map(_nines, recalls), default=0.0), max(map(_nines, recalls), default=1.0)
    ticks = {_nines(recall): f"{recall:g}" for recall in _RECALLS if low - 0.1 <= _nines(recall) <= high + 0.1}
    if high == _NINES_MAX:
        ticks[high] = "1"
    axes.set_xticks([*ticks], [*ticks.values()])
    axes.set_xlim(min([low, *ticks]) - 0.05, max([high, *ticks]) + 0.03)


def _log_axis(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic y axis with few ticks, at 1, or 1 and 3, or 1, 2 and 5 times powers of ten."""
    axes.set_yscale("log")
    low, high = min(values, default=1.0), max(values, default=10.0)
    decades = math.log10(high / low)
    steps = (1,) if decades > 2.5 else (1, 3) if decades > 1.2 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps if 0.8 * low <= step * 10.0**power <= 1.25 * high]
    axes.set_yticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.set_ylim(min([low, *ticks]) / 1.12, max([high, *ticks]) * 1.12)
    axes.minorticks_off()


def _names(points: Points, key: str) -> list[str]:
    """vecdb is drawn last, above the others."""
    return sorted(dict.fromkeys(point[key] for point in points), key=lambda name: name.startswith("vecdb"))


def _said(words: Sequence[str], lines: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    texts = [f"{name}: " + (", ".join(f"{y:,.4g} at {x}" for x, y in some) or "none") for name, some in lines.items()]
    return f"{words[0]}. Of each the {words[1].partition(',')[0]} at {words[2]}. " + ". ".join(texts) + "."
