"""Errors for names that do not exist. The server raises the same ones, and they tell nothing about what others have."""

from __future__ import annotations

from vecdb.errors import NotFound
from vecdb.validate.common import short_repr


def collection_not_found(name: str) -> NotFound:
    """For a collection that never existed, was dropped, or that the caller may not know of."""
    return NotFound(f"no collection {short_repr(name)}; collections() lists those that there are", "collection")


def alias_not_found(name: str) -> NotFound:
    return NotFound(f"no alias {short_repr(name)}; aliases() lists those that there are", "collection")


def tenant_not_found(collection: str, name: str) -> NotFound:
    return NotFound(
        f"collection {collection!r} has no tenant {short_repr(name)}; tenants() lists those that it has, "
        "create_tenant, upsert and grant make them",
        "tenant",
    )
