"""Options that commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Database = Annotated[Path, typer.Option("--db", envvar="VECDB_DB", help="Directory of the database.")]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
OptionalCollection = Annotated[str | None, typer.Option("--collection", "-c", help="One collection only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on standard output.")]
Limit = Annotated[int, typer.Option("--limit", "-k", help="Neighbours per query.")]
Threads = Annotated[int, typer.Option(help="Threads to work with.")]
DatasetFolder = Annotated[
    Path | None, typer.Option("--folder", envvar="VECDB_DATA", help="Where the data sets that are folders lie.")
]

default_db = Path("data")
