"""Recall against effort: measured when asked for, shown as a plot and a table; tune, which chooses the width."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from vecdb.errors import InvalidArgument
from vecdb.integrations.console import queries
from vecdb.integrations.console.context import Asked, Console, back
from vecdb.integrations.console.drawings import curve


def shown(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    facts = queries.facts_of(console.view, docs)
    job = console.job("recall", docs.config.name, "")
    tuning = console.job("tune", docs.config.name)
    found = job.result if job is not None and isinstance(job.result, curve.Curve) else None
    usual = found.usual.get(found.effort) if found is not None and found.effort else None
    sequence = facts.stats.get("sequence")
    return console.page(
        asked,
        "recall.html",
        collection=docs.name,
        tab="recall",
        facts=facts,
        exact=curve.effort_of(facts.kind) is None,
        found=found,
        plot=None if found is None else curve.plotted(found, usual),
        commits=sequence - found.sequence if found is not None and isinstance(sequence, int) else 0,
        job=tuning if tuning is not None and tuning.running else job,
        tuning=tuning,
    )


def measure(console: Console, asked: Asked) -> Response:
    """Of a collection, or of one tenant's records."""
    docs = console.collection(asked)
    view = console.view
    named = asked.text("name")
    tenant = view.among(docs, named)
    facts = queries.facts_of(view, docs)
    sequence = queries.sequence_of(view, docs)

    def work(job: Any) -> curve.Curve:
        effort = curve.effort_of(facts.kind)
        return curve.measured(docs, effort, tenant=tenant, progress=job.progress, stop=job.stopped, sequence=sequence)

    key = ("recall", docs.config.name, named)
    console.jobs.start(key, "Measuring recall", work, unit="widths", stoppable=True)
    return back("/tenant", c=docs.name, name=named) if named else back("/recall", c=docs.name)


def tune(console: Console, asked: Asked) -> Response:
    console.view.require_write()
    docs = console.collection(asked)
    try:
        wanted = float(asked.text("recall", "0.95"))
    except ValueError:
        raise InvalidArgument(f"recall is a number such as 0.95, got {asked.text('recall')!r}") from None
    console.jobs.start(("tune", docs.config.name), "Tuning", lambda job: docs.tune(curve.sample(docs), recall=wanted))
    console.jobs.forget(("recall", docs.config.name, ""))
    return back("/recall", c=docs.name)
