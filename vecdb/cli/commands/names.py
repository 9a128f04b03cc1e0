"""rename, and alias list, set, drop: names of collections."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vecdb.cli.options import Database, Json, Tls, Token, default_db, opened
from vecdb.cli.output import Output, table

HELP = "Aliases, names that stand for a collection: list, set, drop."

Alias = Annotated[str, typer.Argument(help="The alias.")]


def rename(
    old: Annotated[str, typer.Argument(help="The collection.")],
    new: Annotated[str, typer.Argument(help="Its new name.")],
    db: Database = default_db,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Give a collection another name; its aliases lead to the new one."""
    with opened(db, token, tls) as database:
        database.rename_collection(old, new)
    Output(json).emit({"renamed": old, "name": new}, lambda console: console.print("renamed"))


def list_(db: Database = default_db, token: Token = None, tls: Tls = None, json: Json = False) -> None:
    """Aliases, and the collections that they stand for."""
    with opened(db, token, tls, read_only=True) as database:
        rows = [{"alias": alias, "collection": name} for alias, name in database.aliases().items()]
    Output(json).emit(
        rows, lambda console: console.print(table(["alias", "collection"], [list(row.values()) for row in rows]))
    )


def set_(
    alias: Alias,
    collection: Annotated[str, typer.Argument(help="The collection that it stands for from now on.")],
    db: Database = default_db,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Make an alias, or switch it to another collection, in one step."""
    with opened(db, token, tls) as database:
        database.set_alias(alias, collection)
    Output(json).emit({"alias": alias, "collection": collection}, lambda console: console.print("set"))


def drop(alias: Alias, db: Database = default_db, token: Token = None, tls: Tls = None, json: Json = False) -> None:
    """Forget an alias; its collection stays."""
    with opened(db, token, tls) as database:
        database.drop_alias(alias)
    Output(json).emit({"dropped": alias}, lambda console: console.print("forgotten"))


COMMANDS: dict[str, Any] = {"list": list_, "set": set_, "drop": drop}
