"""The plot: latency over the share that matches, a panel for each correlation, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vecdb_bench.figures import plots, style

HEIGHT = 840


def plot(result: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw the peers of a result as PATH-light.svg and PATH-dark.svg. Raises Unavailable without matplotlib."""
    draw = plots.latency_over_share(result["peers"]["points"], plots.FILTERS_TITLE, result["plan"]["clock"])
    return style.save(draw, path, HEIGHT)
