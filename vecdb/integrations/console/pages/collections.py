"""All collections; one of them, its index and its memory; optimize and vacuum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

import vecdb
from vecdb.integrations.console import queries
from vecdb.integrations.console.context import Asked, Console, back


def overview(console: Console, asked: Asked) -> Response:
    found = queries.collections(console.view)
    stats = queries.database_stats(console.view)
    return console.page(asked, "overview.html", found=found, stats=stats)


def one(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    facts = queries.facts_of(console.view, docs)
    return console.page(
        asked,
        "collection.html",
        collection=docs.name,
        tab="collection",
        facts=facts,
        memory=queries.memory_parts(facts.stats),
        job=console.job("care", docs.config.name),
    )


def optimize(console: Console, asked: Asked) -> Response:
    return _care(console, asked, "Optimizing", vecdb.Collection.optimize)


def vacuum(console: Console, asked: Asked) -> Response:
    return _care(console, asked, "Vacuum", vecdb.Collection.vacuum)


def _care(console: Console, asked: Asked, title: str, work: Callable[..., Any]) -> Response:
    """Begin long work on a collection, and show how far it is."""
    console.view.require_write()
    docs = console.collection(asked)
    console.jobs.start(("care", docs.config.name), title, lambda job: work(docs, progress=job.progress), unit="rows")
    return back("/collection", c=docs.name)
