"""tenant list, info, create, drop, grant, revoke: which tenants may see which records of a collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli.options import CollectionName, Database, Json, Tls, Token, default_db, ids_of, opened
from vecdb.cli.output import Output, facts, table
from vecdb.errors import NotFound

HELP = "Tenants of a collection: list, info, create, drop, grant, revoke."

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Tenants; one or more.")]
Name = Annotated[str, typer.Argument(help="The tenant.")]
Ids = Annotated[list[str], typer.Option("--id", help="A record; give it again for more.")]
Owner = Annotated[str, typer.Option(help="Whose records these are.")]


def list_(
    collection: CollectionName,
    db: Database = default_db,
    after: Annotated[str | None, typer.Option(help="Those past this name, which need not exist.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-k", help="So many names at most.")] = 1_000,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Tenants by name, and how many records each may see."""
    with opened(db, token, tls, read_only=True) as database:
        docs = database.collection(collection)
        rows = [{"name": name, "records": _count(docs, name)} for name in docs.tenants(after=after, limit=limit)]
    Output(json).emit(
        rows, lambda console: console.print(table(["name", "records"], [list(row.values()) for row in rows]))
    )


def info(
    name: Name,
    collection: CollectionName,
    db: Database = default_db,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Records, quota and memory of a tenant, and how its searches are answered."""
    with opened(db, token, tls, read_only=True) as database:
        found = database.collection(collection).stats(tenant=name)
    Output(json).emit(found, lambda console: console.print(facts(found)))


def create(
    names: Names,
    collection: CollectionName,
    db: Database = default_db,
    records_max: Annotated[int | None, typer.Option(help="Records that each may have at most.")] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Those that are there are no error, and get the quota, too.")
    ] = False,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Make tenants. Grants and imports make those that they name as well; a quota is given here."""
    with opened(db, token, tls) as database:
        made = database.collection(collection).create_tenant(names, exist_ok=exist_ok, records_max=records_max)
    Output(json).emit({"created": made}, lambda console: console.print(f"{made:,} tenants made"))


def drop(
    name: Name,
    collection: CollectionName,
    db: Database = default_db,
    records: Annotated[
        bool, typer.Option("--records", help="Delete the records that no other tenant may see, too.")
    ] = False,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Forget a tenant. Its records stay, unless --records; who makes a tenant of that name later inherits none."""
    with opened(db, token, tls) as database:
        deleted = database.collection(collection).drop_tenant(name, records=records)
    Output(json).emit(
        {"dropped": name} | ({} if deleted is None else {"deleted": deleted}),
        lambda console: console.print(
            f"forgotten, {deleted:,} records deleted" if deleted is not None else "forgotten"
        ),
    )


def _access_command(method: str, done: str, shown: str, text: str) -> Callable[..., None]:
    """grant or revoke.

    method : of Collection.   done : key of the JSON result.   shown : printed after the count.   text : the help.
    """

    def command(
        names: Names,
        collection: CollectionName,
        id: Ids,
        db: Database = default_db,
        owner: Owner = "",
        token: Token = None,
        tls: Tls = None,
        json: Json = False,
    ) -> None:
        with opened(db, token, tls) as database:
            docs = database.collection(collection)
            changed = getattr(docs, method)(ids_of(docs, id), set(names), owner=owner)
        Output(json).emit({done: changed}, lambda console: console.print(f"{changed:,} {shown}"))

    command.__doc__ = text
    return command


grant = _access_command("grant", "granted", "grants were not there before", "Let tenants see records.")
revoke = _access_command(
    "revoke",
    "revoked",
    "grants were there",
    "Take records away from tenants; when this returns no search of theirs finds them, in any process.",
)


def _count(docs: vecdb.Collection, name: str) -> int | None:
    """The records of a tenant; None where the tenant was dropped in the meantime."""
    try:
        return docs.count(tenant=name)
    except NotFound:
        return None


COMMANDS: dict[str, Any] = {
    "list": list_, "info": info, "create": create, "drop": drop, "grant": grant, "revoke": revoke,
}  # fmt: skip
