"""Search by the id of a record, a vector or a text: what was found, and how."""

from __future__ import annotations

from starlette.responses import Response

from vecdb.errors import InvalidArgument, NotFound
from vecdb.integrations.console import queries
from vecdb.integrations.console.context import Asked, Console


def searched(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    wanted = queries.SearchAsked(
        asked.text("by", "text" if docs.embedder is not None else "id"), asked.text("q"), asked.text("owner"),
        asked.text("limit", "10"), asked.text("filter"), asked.text("tenant"), asked.text("effort"),
    )  # fmt: skip
    found, problem = None, None
    if wanted.query:
        try:
            found = queries.search(console.view, docs, wanted)
        except (InvalidArgument, NotFound) as error:
            problem = str(error)
    return console.page(
        asked, "search.html", 200 if problem is None else 400, collection=docs.name, tab="search", wanted=wanted,
        found=found, problem=problem, texts=docs.embedder is not None, dim=docs.dim, metric=docs.metric,
    )  # fmt: skip
