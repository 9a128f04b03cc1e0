"""What is said of a name that leads nowhere: the same near and far, and nothing of what others have."""

from __future__ import annotations

from vecdb.errors import NotFound
from vecdb.validate.common import show


def collection_not_found(name: str) -> NotFound:
    """Of one that never was, was dropped, or is not for the caller to know."""
    return NotFound(f"no collection {show(name)}; collections() lists those that there are")


def no_tenant(collection: str, name: str) -> NotFound:
    return NotFound(
        f"collection {collection!r} has no tenant {show(name)}; tenants() lists those that it has, "
        "create_tenant, upsert and grant make them"
    )
