"""Records of a collection, a page at a time; one record with its vector; its deletion."""

from __future__ import annotations

import numpy as np
from starlette.responses import Response

from vecdb.errors import InvalidArgument, NotFound
from vecdb.integrations.console import queries
from vecdb.integrations.console.context import Asked, Console, back


def listed(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    condition = asked.text("filter")
    if asked.text("add_field"):
        condition = queries.with_condition(
            condition, asked.text("add_field"), asked.text("add_how"), asked.text("add_value")
        )
    wanted = queries.RecordsAsked(
        condition, asked.text("sort"), asked.text("desc") == "1", asked.text("after"), asked.text("tenant"),
        asked.number("at"),
    )  # fmt: skip
    page, problem = None, None
    try:
        page = queries.records(console.view, docs, wanted)
    except (InvalidArgument, NotFound) as error:
        problem = str(error)
    return console.page(
        asked, "records.html", 200 if problem is None else 400, collection=docs.name, tab="records", wanted=wanted,
        found=page, problem=problem, hows=queries.HOWS,
    )  # fmt: skip


def one(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    record = queries.record(console.view, docs, asked.text("id"), asked.text("owner"))
    vector = None if record.vector is None else np.asarray(record.vector)
    return console.page(
        asked,
        "record.html",
        collection=docs.name,
        tab="records",
        record=record,
        bars=[] if vector is None else queries.bars(vector),
        numbers=[] if vector is None else vector.tolist(),
        norm=None if vector is None else float(np.linalg.norm(vector.astype(np.float64))),
    )


def delete(console: Console, asked: Asked) -> Response:
    console.view.require_write()
    docs = console.collection(asked)
    owner = asked.text("owner")
    record = queries.record(console.view, docs, asked.text("id"), owner)
    docs.delete([record.id], owner=owner)
    return back("/records", c=docs.name, note="deleted")
