"""Tenants of a collection with their records and quotas; one tenant; what it is granted and loses."""

from __future__ import annotations

import re

from starlette.responses import Response

import vecdb
from vecdb.errors import InvalidArgument, NotFound
from vecdb.integrations.console import queries
from vecdb.integrations.console.context import Asked, Console, back
from vecdb.integrations.console.drawings import curve

_IDS_MAX = 1_000  # that one form grants or revokes


def listed(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    after = asked.text("after")
    found, more = queries.tenants(console.view, docs, after)
    return console.page(asked, "tenants.html", collection=docs.name, tab="tenants", found=found, more=more, after=after)


def one(console: Console, asked: Asked) -> Response:
    docs = console.collection(asked)
    facts = queries.tenant_facts(console.view, docs, asked.text("name"))
    job = console.job("recall", docs.config.name, facts.name)
    return console.page(
        asked,
        "tenant.html",
        collection=docs.name,
        tab="tenants",
        facts=facts,
        job=job,
        measured=job.result if job is not None and isinstance(job.result, curve.Curve) else None,
    )


def create(console: Console, asked: Asked) -> Response:
    console.view.require_write()
    docs = console.collection(asked)
    name, quota = asked.text("name"), asked.text("quota")
    if quota and not quota.isdigit():
        raise InvalidArgument(f"a quota is a number of records, got {quota!r}")
    docs.create_tenant(name, records_max=int(quota) if quota else None)
    return back("/tenant", c=docs.name, name=name, note="made")


def grant(console: Console, asked: Asked) -> Response:
    console.view.require_write()
    docs, name, ids = _named(console, asked)
    docs.grant(ids, {name})
    return back("/tenant", c=docs.name, name=name, note="granted")


def revoke(console: Console, asked: Asked) -> Response:
    console.view.require_write()
    docs, name, ids = _named(console, asked)
    docs.revoke(ids, {name})
    return back("/tenant", c=docs.name, name=name, note="revoked")


def _named(console: Console, asked: Asked) -> tuple[vecdb.Collection, str, list[int | str]]:
    """The collection, a tenant that is there, and ids: one on a line, or numbers with commas between."""
    docs = console.collection(asked)
    name = queries.tenant_facts(console.view, docs, asked.text("name")).name
    between = "[\r\n]+" if docs.config.id_kind == "str" else "[\r\n,; ]+"
    words = [word.strip() for word in re.split(between, asked.text("ids")) if word.strip()]
    if not words or len(words) > _IDS_MAX:
        raise InvalidArgument(f"give ids of 1 to {_IDS_MAX:,} records, one on a line")
    ids = [(word, queries.keys_of(docs, word)) for word in words]
    for word, keys in ids:
        if not keys:
            raise NotFound(f"collection {docs.name!r} has no record {word!r}", "record")
    return docs, name, [keys[0] for _, keys in ids]
