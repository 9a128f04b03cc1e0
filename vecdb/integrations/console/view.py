"""What one console may show: a database, or what one tenant sees of it.

A console that is bound to a tenant names it in every read. Collections and tenants beyond it are answered as if they
were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import vecdb
from vecdb.errors import InvalidArgument, NotFound, PermissionDenied
from vecdb.validate import tenant_name
from vecdb.validate.not_found import collection_not_found, tenant_not_found


@dataclass(frozen=True, slots=True)
class View:
    """write : whether actions may change anything. embed : a model that reads texts, for collections that note it."""

    db: vecdb.Database
    tenant: str | None = None
    write: bool = False
    embed: Any = None

    @classmethod
    def of(cls, db: vecdb.Database, *, tenant: str | None = None, write: bool = False, embed: Any = None) -> View:
        """Raises InvalidArgument where the arguments do not go together."""
        if tenant is not None and write:
            raise InvalidArgument("a console that is bound to a tenant only reads: leave --write or --tenant out")
        return cls(db, None if tenant is None else tenant_name(tenant).decode(), write, vecdb.Embedder.of(embed))

    @property
    def name(self) -> str:
        """The database as a title: the last part of its path, or its address."""
        path = str(self.db.path).rstrip("/")
        return path if "://" in path else path.rpartition("/")[2] or path

    def collections(self) -> list[str]:
        return self.db.collections(tenant=self.tenant)

    def collection(self, name: str) -> vecdb.Collection:
        """Raises NotFound, also for one in which the tenant is unknown."""
        docs = self.db.collection(name)
        if self.tenant is not None and docs.config.name not in self.collections():
            raise collection_not_found(name)
        return self._read_by(docs) if self.embed is not None else docs

    def _read_by(self, docs: vecdb.Collection) -> vecdb.Collection:
        """With the model, where the collection notes this one."""
        noted = docs.metadata.get("embedding")
        if not isinstance(noted, dict) or noted.get("name") != self.embed.name:
            return docs
        return self.db.collection(docs.name, embed=self.embed)

    def among(self, docs: vecdb.Collection, tenant: str | None) -> str | None:
        """The tenant of a read for which `tenant` was asked for, None for all records. Raises NotFound."""
        asked = tenant or None
        if self.tenant is None:
            return asked
        if asked is not None and asked != self.tenant:
            raise tenant_not_found(docs.name, asked)
        return self.tenant

    def require_write(self) -> None:
        if not self.write:
            raise PermissionDenied("this console only reads: start it with --write")


def or_nothing(ask: Any, nothing: Any) -> Any:
    """What `ask()` returns; `nothing` where the tenant that it names has no records yet."""
    try:
        return ask()
    except NotFound as error:
        if error.what != "tenant":
            raise
        return nothing
