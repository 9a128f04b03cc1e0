"""A map of the vectors in two dimensions: drawn when asked for, kept, and stamped with the commit that it shows."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from vecdb.errors import NotFound
from vecdb.integrations.console import figures, queries
from vecdb.integrations.console.context import Asked, Console, address, back
from vecdb.integrations.console.drawings import projection
from vecdb.integrations.console.drawings.projection import Projection

_LABEL_FIELDS = 3  # told of a point


def shown(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    job = console.job("map", docs.config.name)
    found = _drawn(console, docs.config.name)
    fields = [] if found is None else projection.colour_fields(found.records)
    wanted = asked.text("field")
    now = queries.sequence_of(console.view, docs)
    return console.page(
        asked,
        "map.html",
        collection=docs.name,
        tab="map",
        found=found,
        fields=fields,
        field=wanted if wanted in fields else "",
        commits=0 if found is None else max(0, now - found.sequence),
        job=job,
    )


def points(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    found = _drawn(console, docs.config.name)
    if found is None:
        raise NotFound("no map of this collection was drawn")
    field = asked.text("field")
    codes, legend, kind = projection.colours(found.records, field)
    return JSONResponse(
        {
            "x": [round(float(x), 4) for x in found.points[:, 0]],
            "y": [round(float(y), 4) for y in found.points[:, 1]],
            "codes": codes,
            "legend": legend,
            "kind": kind,
            "others": min(codes, default=0) < 0,
            "labels": [_label(record, field) for record in found.records],
            "addresses": [address("/record", c=docs.name, id=str(one.id), owner=one.owner) for one in found.records],
        }
    )


def draw(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    view = console.view
    sequence = queries.sequence_of(view, docs)

    def work(job: Any) -> Projection:
        return projection.drawn(docs, tenant=view.tenant, progress=job.progress, stop=job.stopped, sequence=sequence)

    key = ("map", docs.config.name)
    console.jobs.start(key, "Drawing the map", work, unit="records", stoppable=True)
    return back("/map", c=docs.name, field=asked.text("field"))


def _drawn(console: Console, name: str) -> Projection | None:
    found = console.jobs.result(("map", name))
    return found if isinstance(found, Projection) else None


def _label(record: Any, field: str) -> str:
    names = [field] if field in record.fields else list(record.fields)[:_LABEL_FIELDS]
    said = [f"{name}: {figures.short(record.fields[name])}" for name in names]
    return " · ".join([f"{record.id}", *said])
