"""What a notebook shows: a table of a collection's facts, in which all that comes from the data is escaped, and hits
as a plot.
"""

from __future__ import annotations

import html
from typing import Any

from vecdb.api.tables import library
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.schema import CollectionConfig

fields_shown = 12
_LABEL_MAX = 40  # characters


def collection_html(config: CollectionConfig, stats: dict[str, Any] | VecdbError, fields: list[str]) -> str:
    """name, vectors, and what `stats` says of records, index and memory, or the error that it raised instead."""
    rows = {"vectors": f"dim {config.dim or 'not known yet'}, {config.metric}, {config.dtype}"}
    if isinstance(stats, VecdbError):
        rows["not known"] = str(stats)
    else:
        index = stats.get("index_stats") or {}
        rows["records"] = f"{stats.get('live', 0):,}"
        rows["index"] = f"{index.get('kind', 'flat')}, {stats.get('index_state', '')}"
        rows["in memory"] = _mebibytes(stats.get("bytes_ram"))
        rows["on disk"] = _mebibytes(stats.get("bytes_disk"))
    if fields:
        more = f" and {len(fields) - fields_shown} more" if len(fields) > fields_shown else ""
        rows["fields"] = ", ".join(fields[:fields_shown]) + more
    body = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
    return f"<table><caption>collection {html.escape(repr(config.name))}</caption><tbody>{body}</tbody></table>"


def plotted(hits: Any, label: str | None, axes: Any) -> Any:
    """Axes of matplotlib with the hits: see `Hits.plot`."""
    axes = library("matplotlib.pyplot", "plot()").subplots(layout="constrained")[1] if axes is None else axes
    axes.set_xlabel("distance" if hits.single else "place of the hit")
    if hits.single:
        names = [str(one) for one in (hits.ids.tolist() if label is None else _values(hits, label))]
        places = range(len(names))
        axes.barh(places, hits.distances)
        axes.set_yticks(places, [name if len(name) <= _LABEL_MAX else name[:_LABEL_MAX] + "..." for name in names])
        axes.invert_yaxis()
        return axes
    for part in hits:
        axes.plot(range(1, len(part) + 1), part.distances, color="C0", alpha=max(0.05, min(1.0, 10 / len(hits))))
    axes.set_ylabel("distance")
    return axes


def _values(hits: Any, label: str) -> list[Any]:
    fields: list[dict[str, Any]] = hits.fields
    if not any(label in one for one in fields):
        raise InvalidArgument(f"no hit has the field {label!r}: search with it, or leave label out for ids")
    return [one.get(label, "") for one in fields]


def _mebibytes(count: Any) -> str:
    return f"{count / 2**20:,.1f} MiB" if isinstance(count, int) else "not known"
