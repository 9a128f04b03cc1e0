"""Options that commands share, and functions that open the database which they name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

import vecdb
from vecdb.api.database import check_path
from vecdb.cli.token_file import token_or_file
from vecdb.errors import InvalidArgument, NotFound
from vecdb.storage.disk import manifest
from vecdb.validate.directories import absolute
from vecdb.wire.addresses import is_remote

Database = Annotated[
    str,
    typer.Option(
        "--db", envvar="VECDB_DB", help="Directory of the database, or a server's grpc://host:port, or cluster://..."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="VECDB_TOKEN",
        show_envvar=True,
        callback=token_or_file,
        help="Of a server: who asks. Everybody on this machine sees it in the list of processes: --token-file does not "
        "show it.",
    ),
]
Tls = Annotated[
    str | None, typer.Option("--tls", envvar="VECDB_TLS", help="Of a server: PEM file of the CA that it is trusted by.")
]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
OptionalCollection = Annotated[str | None, typer.Option("--collection", "-c", help="One collection only.")]
Tenants = Annotated[list[str] | None, typer.Option("--tenant", help="What this tenant may see; again for more.")]
Filter = Annotated[
    str | None, typer.Option("--filter", help="Only records that match, such as \"lang = 'en' and year >= 2020\".")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on standard output.")]
Limit = Annotated[int, typer.Option("--limit", "-k", min=1, help="Neighbours per query.")]
DatasetFolder = Annotated[
    Path | None, typer.Option("--folder", envvar="VECDB_DATA", help="Where the data sets that are folders lie.")
]

default_db = "data"


def refuse_address(db: str) -> None:
    """Raise InvalidArgument for what can be no directory and no server, and for what others made."""
    if not is_remote(db) and db != ":memory:":
        check_path(db, "the directory of a database")
        absolute(db)
        refuse_foreign(db)


def refuse_foreign(db: str) -> None:
    """Raise InvalidArgument, which names it, for a directory or a file that another database or library made."""
    from vecdb_datasets.formats.foreign.recognise import describe

    found = describe(os.path.expanduser(db))
    if found is not None:
        raise InvalidArgument(
            f"{found}, no vecdb database: `vecdb import {db} --db DIRECTORY --collection NAME` reads it into one"
        )


def has_database(db: str) -> bool:
    """Whether there is a database; of a server that is assumed."""
    return is_remote(db) or (bool(db) and (Path(os.path.expanduser(db)) / manifest.NAME).is_file())


def opened(
    db: str, token: str | None, tls: str | None, *, read_only: bool = False, make: bool = False
) -> vecdb.Database:
    """The open database. token, tls : for a server only; the environment may set them for a directory, too.

    make : make one where there is none; otherwise that raises NotFound.
    """
    if is_remote(db):
        return vecdb.open(db, token=token, tls=tls)
    if not has_database(db):
        refuse_address(db)
    if not make and not has_database(db):
        raise NotFound(f"no database at {db}: import and serve make one, other commands need one that is there")
    return vecdb.open(db, read_only=read_only)


def directory(db: str, doing: str) -> Path:
    """The directory of a database. Raises InvalidArgument where `db` is a server. doing : the command's name."""
    if is_remote(db):
        raise InvalidArgument(
            f"{doing} needs the files of the database, {db} is a server, or several: run it where they are"
        )
    return Path(db)


def ids_of(docs: vecdb.Collection, texts: list[str]) -> list[int] | list[str]:
    """The ids as ints if the collection's ids are ints, otherwise as strings, even if all of them are digits."""
    if all(re.fullmatch("-?[0-9]+", text) for text in texts):
        numbers = [int(text) for text in texts]
        try:
            docs.get(numbers)
        except InvalidArgument:
            return texts
        return numbers
    return texts
