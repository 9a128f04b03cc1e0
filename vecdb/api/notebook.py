"""What a notebook shows of a collection: a table of its facts. All that comes from the data is escaped."""

from __future__ import annotations

import html
from typing import Any

from vecdb.errors import VecdbError
from vecdb.schema import CollectionConfig

fields_shown = 12


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


def _mebibytes(count: Any) -> str:
    return f"{count / 2**20:,.1f} MiB" if isinstance(count, int) else "not known"
