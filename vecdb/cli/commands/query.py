"""info, ls, search, fields, facets, check, tune: look at a database and search it. Only tune writes: the width that it
measured.
"""

from __future__ import annotations

import json as jsonlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

import vecdb
from vecdb.cli.options import (
    CollectionName,
    Database,
    Filter,
    Json,
    Limit,
    OptionalCollection,
    Tenants,
    Tls,
    Token,
    default_db,
    ids_of,
    opened,
)
from vecdb.cli.output import Output, cell, facts, table
from vecdb.errors import InvalidArgument, NotFound

tune_sample_max = 500


def info(
    db: Database = default_db,
    collection: OptionalCollection = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Show what a database and its collections hold, in memory and on disk."""
    out = Output(json)
    with opened(db, token, tls, read_only=True) as database:
        whole = database.stats()
        answers = whole.get("log", {}).get("answers", True)  # of a copy, or a writer, that was cut off too long: no
        names = [] if not answers else [collection] if collection else database.collections()
        found = {"database": whole, "collections": {n: database.collection(n).stats() for n in names}}

    def show(console: Console) -> None:
        console.print(facts(found["database"], f"database {db}"))
        if not answers:
            console.print(f"reads are refused here: {whole['log']['trouble'] or 'the end of the log is not known'}")
        for name, stats in found["collections"].items():
            console.print(facts(stats, f"collection {name}"))

    out.emit(found, show)


def ls(db: Database = default_db, token: Token = None, tls: Tls = None, json: Json = False) -> None:
    """List the collections."""
    rows = []
    with opened(db, token, tls, read_only=True) as database:
        for name in database.collections():
            stats = database.collection(name).stats()
            wanted = ("dim", "metric", "dtype", "live", "index_state", "bytes_disk")
            rows.append({"name": name} | {key: stats.get(key) for key in wanted})
    columns = ["name", "dim", "metric", "dtype", "live", "index_state", "bytes_disk"]
    Output(json).emit(rows, lambda console: console.print(table(columns, [[row[c] for c in columns] for row in rows])))


def search(
    collection: CollectionName,
    db: Database = default_db,
    id: Annotated[str | None, typer.Option(help="Search near this record, itself left out.")] = None,
    vector: Annotated[str | None, typer.Option(help="Numbers with commas between, or @FILE.npy.")] = None,
    limit: Limit = 10,
    ef: Annotated[int | None, typer.Option(help="Beam width of the graph search.")] = None,
    recall: Annotated[float | None, typer.Option(help="Recall to aim for, as learned by tune.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every vector.")] = False,
    fields: Annotated[str | None, typer.Option(help="Fields to show, with commas between; all by default.")] = None,
    filter: Filter = None,
    tenant: Tenants = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the plan and what it cost.")] = False,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Find the nearest records to a record or to a vector, among all or those that match and that tenants may see."""
    if (id is None) == (vector is None):
        raise typer.BadParameter("give one of --id and --vector")
    out = Output(json)
    params = vecdb.SearchParams(ef=ef, recall=recall, exact=exact)
    with opened(db, token, tls, read_only=True) as database:
        docs = database.collection(collection)
        own = None if id is None else _record(docs, id, tenant)
        query = own.vector if own is not None else _vector(vector or "")
        if query.ndim != 1:
            raise InvalidArgument(f"--vector has shape {query.shape}; give one vector of dim {docs.dim}")
        hits = docs.search(
            query,
            limit=limit + (own is not None),
            params=params,
            fields=fields.split(",") if fields else None,
            explain=explain,
            tenant=tenant or None,
            filter=filter,
        )
    owned = hits.owners is not None  # two owners may have the same id
    found = [
        {"id": hit.id, **({"owner": hit.owner} if owned else {}), "distance": hit.distance, "score": hit.score,
         "fields": hit.fields}
        for hit in hits
        if own is None or (hit.id, hit.owner) != (own.id, own.owner)
    ][:limit]  # fmt: skip
    result: dict[str, Any] = {"hits": found}
    if explain:
        result["explain"] = hits.explain

    def show(console: Console) -> None:
        columns = ["id", *(["owner"] if owned else []), "distance", "score", "fields"]
        rows = [[str(hit["id"]), *[hit[name] for name in columns[1:-1]], cell(hit["fields"])] for hit in found]
        console.print(table(columns, rows))
        if explain and hits.explain:
            console.print(facts(hits.explain, "plan"))

    out.emit(result, show)


def fields(
    collection: CollectionName,
    db: Database = default_db,
    tenant: Tenants = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Show which fields the records have, of which types, and how many records have each."""
    with opened(db, token, tls, read_only=True) as database:
        found = database.collection(collection).fields(tenant=tenant or None)
    rows = [(name, ", ".join(one["types"]), one["count"]) for name, one in found.items()]
    Output(json).emit(found, lambda console: console.print(table(["field", "types", "records"], rows)))


def facets(
    collection: CollectionName,
    field: Annotated[str, typer.Argument(metavar="FIELD", help="A field, or a path such as meta.author.")],
    db: Database = default_db,
    limit: Annotated[int, typer.Option(min=1, help="Values to show, the most frequent first.")] = 20,
    filter: Filter = None,
    tenant: Tenants = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Count the records that have each value of a field; a list counts each of its elements."""
    with opened(db, token, tls, read_only=True) as database:
        counts = database.collection(collection).facets(field, filter, limit, tenant=tenant or None)
    found = {"field": field, "values": [{"value": value, "count": count} for value, count in counts.items()]}
    rows = list(counts.items())
    Output(json).emit(found, lambda console: console.print(table([field, "records"], rows)))


def tune(
    collection: CollectionName,
    db: Database = default_db,
    queries: Annotated[
        Path | None, typer.Option(help="File of query vectors; records of the collection if none.")
    ] = None,
    recall: Annotated[float, typer.Option(help="Recall that searches should reach.")] = 0.95,
    limit: Limit = 10,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Measure recall against beam width, and make the narrowest that reaches the recall the default."""
    out = Output(json)
    with opened(db, token, tls) as database:
        docs = database.collection(collection)
        vectors = _read_queries(queries) if queries else _sample(docs, tune_sample_max)
        with out.waiting(f"measuring {len(vectors)} queries"):
            curve = docs.tune(vectors, recall=recall, limit=limit)
    columns = list(curve[0]) if curve else []
    out.emit(curve, lambda console: console.print(table(columns, [list(point.values()) for point in curve])))


def check(db: Database = default_db, token: Token = None, tls: Tls = None, json: Json = False) -> None:
    """Read every byte of a database and report what is wrong; repairs nothing. Exit code 1 when anything is."""
    out = Output(json)
    with opened(db, token, tls, read_only=True) as database, out.waiting(f"checking {db}"):
        problems = database.check()

    def show(console: Console) -> None:
        for problem in problems:
            console.print(problem, soft_wrap=True)
        console.print(f"{len(problems)} problems" if problems else "all is well")

    out.emit({"ok": not problems, "problems": problems}, show)
    if problems:
        raise typer.Exit(1)


# -- helpers ---------------------------------------------------------------------------------------


def _record(docs: vecdb.Collection, text: str, tenants: list[str] | None) -> vecdb.Record:
    """The record with the id `text`; the collection's ids may be ints or strings."""
    [found] = docs.get(ids_of(docs, [text]), include_vectors=True, tenant=tenants or None)
    if found is None:
        raise NotFound(
            f"collection {docs.name!r} has no record {text!r}" + (" of these tenants" if tenants else ""), "record"
        )
    assert isinstance(found, vecdb.Record)
    if found.vector is None:
        raise InvalidArgument(f"record {text!r} of collection {docs.name!r} has no vector, so nothing is near it")
    return found


def _vector(text: str) -> Any:
    """A vector as the option spells it, or the one in the file that it names."""
    if text.startswith("@"):
        return _vector_of_file(text[1:])
    found: Any
    try:
        found = np.array(jsonlib.loads(f"[{text.strip().strip('[]')}]"), dtype=np.float32)
    except (ValueError, TypeError, RecursionError):
        found = np.empty(0)
    if not found.size:
        raise typer.BadParameter(f"--vector {text!r} is not a list of numbers such as 0.1,0.2,0.3")
    return found


def _vector_of_file(name: str) -> Any:
    """The vector in a file: an npy file of one dimension, or any file of vectors with a single row."""
    from vecdb_datasets import open_vectors

    loaded = None
    with suppress(ValueError, EOFError):  # no npy file, or one of objects: open_vectors says so
        loaded = np.load(name, allow_pickle=False)
    if not isinstance(loaded, np.ndarray) or loaded.ndim != 1 or loaded.dtype.kind not in "fiu":
        with open_vectors(name) as source:
            if len(source) != 1:
                raise InvalidArgument(f"--vector @{name}: {len(source):,} vectors, expected one")
            loaded = source[0:1][0]
    return loaded


def _read_queries(path: Path) -> Any:
    from vecdb_datasets import open_vectors

    with open_vectors(path) as source:
        return np.array(source[0 : min(len(source), tune_sample_max)])


def _sample(docs: vecdb.Collection, count: int) -> Any:
    """Vectors of records that are evenly spread over the collection."""
    total = docs.count()
    if total == 0:
        raise InvalidArgument(f"collection {docs.name!r} is empty: there is nothing to tune on")
    stride = max(1, total // count)
    picked = []
    for at, batch in enumerate(docs.iter(batch=min(stride, 65_536), include_vectors=True)):
        picked += [one.vector for one in batch if one.vector is not None][:1]
        if at + 1 >= count:
            break
    if not picked:
        raise InvalidArgument(f"no record of collection {docs.name!r} that was looked at has a vector to tune on")
    return np.stack(picked)
