"""README's tables between their marks, and its plots, made from kept results.

<!-- made by vecdb bench figures: recall -->
...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import vecdb
from vecdb_bench.figures import plots, style
from vecdb_bench.figures.plots import FILTERS_TITLE
from vecdb_bench.figures.tables import PARTS, Results

PART = re.compile(r"(<!-- made by vecdb bench figures: ([\w-]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def written(text: str, results: Results) -> str:
    """The page with its parts made anew. Raises InvalidArgument where a mark names no part."""

    def made(found: re.Match[str]) -> str:
        if found[2] not in PARTS:
            raise vecdb.InvalidArgument(f"no part {found[2]!r} of README; there are {', '.join(PARTS)}")
        return found[1] + PARTS[found[2]](results) + found[3]

    return PART.sub(made, text)


def unmade(text: str) -> str:
    """The page without its made parts."""
    return PART.sub("", text)


def drawings(results: Results) -> dict[str, tuple[style.Draw, float]]:
    """What is drawn, and the height of each plot in pixels."""
    recall, disk, tenants, filters = (
        results[name] for name in ("recall-summaries", "disk-sift", "tenants-summaries", "filters-glove")
    )
    singles = [point for point in recall.rows["points"] if point["mode"] == "single"]
    rates = [point | {"rate": 1e3 / point["mean_ms"]} for point in disk.rows["points"]]
    in_memory = _sized("In memory", recall.data["rows"], recall.data["dim"])
    from_disk = _sized("From SSD", disk.plan["rows"], 128)
    among = f"Among {tenants.data['tenants']:,} tenants: {tenants.data['rows']:,} x {tenants.data['dim']}"
    return {
        "recall": (plots.recall_against_rate({"": singles}, in_memory, recall.clock), 400),
        "disk": (plots.recall_against_rate({"": rates}, from_disk, disk.clock), 400),
        "tenants": (plots.latency_at_recall(tenants.rows["points"], among, tenants.clock), 400),
        "filters": (plots.latency_over_share(filters.rows["points"], FILTERS_TITLE, filters.clock), 840),
    }


def _sized(words: str, rows: int, dim: int) -> str:
    return f"{words}: {rows:,} x {dim}"


def make(root: Path, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Draw the plots and write the tables of a checkout. Returns the files that have changed."""
    page = root / "README.md"
    if not (page.exists() and (root / "bench" / "results").is_dir()):
        raise vecdb.InvalidArgument(f"{root} is no checkout of vecdb: it has no README.md and bench/results")
    results = Results(root / "bench" / "results")
    changed = []
    for name, (draw, height) in drawings(results).items():
        path = root / "bench" / "plots" / name
        before = {file: file.read_bytes() for file in path.parent.glob(f"{name}-*.svg")}
        changed += [file for file in style.save(draw, path, height) if before.get(file) != file.read_bytes()]
    text = page.read_text(encoding="utf-8")
    if (now := written(text, results)) != text:
        page.write_text(now, encoding="utf-8")
        changed.append(page)
    for file in changed:
        say(f"written {file}")
    return changed
