"""import and export: files of vectors in, collections out, in bounded memory.

An import writes whole batches in the file's order. After each batch it notes its progress in DB.import-COLLECTION.json,
beside the database and not within it (if the database is a server: beside FILE, with the address in the name):

    {"source": {path, size, mtime_ns, columns}, "rows": rows written, "last_id": id of the last of them}

The next run of the same command continues from there if the file is the same and that last record exists. A batch that
was written but not noted is written again, which changes nothing. The file is deleted when the import is complete.
"""

from __future__ import annotations

import json as jsonlib
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import vecdb
from vecdb.cli.options import (
    CollectionName,
    Database,
    Json,
    Tenants,
    Tls,
    Token,
    default_db,
    directory,
    is_server,
    opened,
)
from vecdb.cli.output import Output, Report
from vecdb.errors import InvalidArgument
from vecdb.schema import Curator, Flat, Hnsw, IndexConfig, Spann

batch_bytes = 8 << 20
batch_rows_max = 16_384
dtypes = {"float32": "float32", "float64": "float32", "float16": "float16", "int8": "int8", "uint8": "uint8"}


def import_(
    file: Annotated[
        Path, typer.Argument(help="Parquet, npy, fvecs/bvecs/ivecs, fbin/u8bin/i8bin, HDF5, CSV or JSONL.")
    ],
    collection: CollectionName,
    db: Database = default_db,
    metric: Annotated[str | None, typer.Option(help="l2, cosine or ip; l2 for whole numbers, else cosine.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16, int8 or uint8; the file's own if none.")] = None,
    index: Annotated[str, typer.Option(help="auto, flat, hnsw, spann or curator.")] = "auto",
    m: Annotated[int, typer.Option("--m", help="hnsw: links per node.")] = 16,
    ef_construction: Annotated[int, typer.Option(help="hnsw: beam width while building.")] = 200,
    bits: Annotated[int, typer.Option(help="spann: bits of a code, a dimension: 1, 2, 4 or 8.")] = 2,
    codes_bytes: Annotated[
        int | None, typer.Option(help="spann: memory for codes, in bytes; 0 keeps them on disk, all in memory if none.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Tables: the column of ids.")] = None,
    vector_column: Annotated[str | None, typer.Option(help="Tables: the column of vectors.")] = None,
    tenant_column: Annotated[
        str | None, typer.Option(help="Tables: the column of who may see each record, a name or a list of names.")
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", help="Who may see all of them; give it again for more.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="HDF5: the data set within the file.")] = None,
    format: Annotated[str | None, typer.Option(help="The file's format, where its content leaves it open.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows to import; all if none.")] = None,
    hnswlib: Annotated[bool, typer.Option("--hnswlib", help="The file is an index that hnswlib saved.")] = False,
    dim: Annotated[int | None, typer.Option(help="With --hnswlib: the dimension, as a check.")] = None,
    optimize: Annotated[bool, typer.Option(help="Finish the index before returning.")] = True,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Import a file of vectors, ids and fields. Interrupted, the same command goes on where it was."""
    out = Output(json)
    started = time.perf_counter()
    if tenant and tenant_column:
        raise typer.BadParameter("give one of --tenant and --tenant-column")
    if hnswlib and (tenant or tenant_column):
        raise typer.BadParameter("--hnswlib imports for no tenant: grant the records afterwards, see vecdb tenant")
    if hnswlib:
        with vecdb.open(directory(db, "import --hnswlib")) as database, out.waiting(f"reading {file}"):
            docs = _import_hnswlib(database, collection, file, metric, dim)
            result: dict[str, Any] = {"collection": collection, "rows": docs.count(), "resumed_at": 0}
    else:
        source = _open(file, format, key, vector_column, id_column)
        lists = TenantLists(source, tenant, tenant_column)
        with source, opened(db, token, tls) as database:
            docs = _collection(
                database, collection, source, metric, dtype, _index(index, m, ef_construction, bits, codes_bytes)
            )
            checkpoint = ImportCheckpoint(
                db, collection, file, [id_column, vector_column, key, tenant_column, *(tenant or ())]
            )
            rows = len(source) if limit is None else min(limit, len(source))
            first = checkpoint.resume_at(docs)
            with out.progress(f"importing {file.name}", "rows") as report:
                _copy(source, docs, first, rows, lists, checkpoint, report)
            if optimize:
                with out.progress("indexing", "rows") as report:
                    docs.optimize(progress=report)
            checkpoint.done()
            result = {"collection": collection, "rows": rows, "resumed_at": first, "live": docs.count()}
    result["seconds"] = time.perf_counter() - started
    out.emit(result, lambda c: c.print(f"{result['rows']:,} rows in {collection!r} after {result['seconds']:.1f} s"))


def export(
    collection: CollectionName,
    destination: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write: .npy .jsonl .csv .parquet .fbin ...")
    ],
    db: Database = default_db,
    format: Annotated[
        str | None, typer.Option(help="npy, jsonl, csv, parquet, fbin ...; by the extension if none.")
    ] = None,
    tenant: Tenants = None,
    tenant_column: Annotated[
        str | None, typer.Option(help="Write who may see each record, too, into a column of this name.")
    ] = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Write a collection, or what tenants may see of it, to a file. Formats of vectors only get their ids in
    OUT.ids.jsonl.
    """
    from vecdb_datasets import create_vectors

    out = Output(json)
    ids_file: Path | None = None
    done = 0
    with opened(db, token, tls, read_only=True) as database:
        docs = database.collection(collection)
        total = docs.count(tenant=tenant or None)
        writer = create_vectors(destination, docs.dim, docs.dtype, format=format)
        if tenant_column is not None and (not writer.takes_ids or (format or destination.suffix) in ("csv", ".csv")):
            raise InvalidArgument(f"{destination} cannot hold lists for --tenant-column: write jsonl or parquet")
        if not writer.takes_ids:
            ids_file = destination.with_name(destination.name + ".ids.jsonl")
        with writer, out.progress(f"writing {destination.name}", "rows") as report, _open_ids_file(ids_file) as lines:
            for batch in docs.iter(batch=4096, include_vectors=True, tenant=tenant or None):
                vectors = np.stack([record.vector for record in batch])
                ids = [record.id for record in batch]
                if ids_file is None:
                    writer.write(vectors, ids, [_row(record, tenant_column) for record in batch])  # type: ignore[arg-type]
                else:
                    writer.write(vectors)
                    lines.writelines(jsonlib.dumps(id, ensure_ascii=False) + "\n" for id in ids)
                done += len(batch)
                report(done, total)
    result = {"file": str(destination), "ids_file": ids_file and str(ids_file), "rows": done}
    out.emit(result, lambda console: console.print(f"{done:,} rows in {destination}"))


# -- import ----------------------------------------------------------------------------------------


def _open(file: Path, format: str | None, key: str | None, vector_column: str | None, id_column: str | None) -> Any:
    from vecdb_datasets import open_vectors

    return open_vectors(file, format=format, key=key, vector_column=vector_column, id_column=id_column)


def _index(kind: str, m: int, ef_construction: int, bits: int, codes_bytes: int | None) -> IndexConfig | None:
    if kind == "spann":
        return Spann(bits=bits, memory_budget_bytes=codes_bytes)
    if kind == "curator":
        return Curator()
    if kind == "hnsw":
        return Hnsw(m=m, ef_construction=ef_construction)
    if kind not in ("auto", "flat"):
        raise typer.BadParameter(f"--index {kind!r}: expected auto, flat, hnsw, spann or curator")
    return Flat() if kind == "flat" else None


def _collection(
    database: vecdb.Database, name: str, source: Any, metric: str | None, dtype: str | None, index: IndexConfig | None
) -> vecdb.Collection:
    """The collection to import into: the existing one if it agrees with the options, otherwise a new one."""
    if name not in database.collections():
        kind = dtype or dtypes.get(str(source.dtype))
        if kind is None:
            raise InvalidArgument(f"{source.path}: dtype {source.dtype} has no counterpart; name one with --dtype")
        chosen = metric or ("cosine" if kind.startswith("float") else "l2")
        return database.create_collection(name, dim=source.dim, metric=chosen, dtype=kind, index=index)
    docs = database.collection(name)
    for option, wanted, actual in (("--metric", metric, docs.metric), ("--dtype", dtype, docs.dtype)):
        if wanted is not None and wanted != actual:
            raise InvalidArgument(f"collection {name!r} has {option[2:]} {actual}, not {wanted}: leave {option} out")
    if source.dim != docs.dim:
        raise InvalidArgument(f"collection {name!r} has dim {docs.dim}, got {source.dim} from {source.path}")
    return docs


def _copy(
    source: Any,
    docs: vecdb.Collection,
    first: int,
    stop: int,
    lists: TenantLists,
    checkpoint: ImportCheckpoint,
    report: Report,
) -> None:
    step = max(1, min(batch_rows_max, batch_bytes // (source.dim * source.dtype.itemsize)))
    report(first, stop)
    for start in range(first, stop, step):
        end = min(stop, start + step)
        ids = source.ids(start, end)
        if ids is None:
            ids = np.arange(start, end)
        fields, tenants = lists.of(source.fields(start, end))
        docs.upsert(ids, source[start:end], fields=fields, tenants=tenants)
        last = ids[-1]
        checkpoint.write(end, last if isinstance(last, str) else int(last))
        report(end, stop)


class TenantLists:
    """Which tenants may see the records of a file: `tenants` for every record, or the names in a column of the file.
    Without either, existing access lists stay as they are.
    """

    def __init__(self, source: Any, tenants: list[str] | None, column: str | None) -> None:
        self._tenants = tenants or None
        self._column = column
        columns = getattr(source, "field_columns", ())
        if column is not None and column not in columns:
            raise InvalidArgument(f"{source.path}: no column {column!r} of tenants; its other columns: {list(columns)}")

    def of(self, rows: list[dict[str, Any]] | None) -> tuple[list[dict[str, Any]] | None, Any]:
        """(fields, tenants) of rows of the file."""
        if self._column is None or rows is None:
            return rows, self._tenants
        fields = [{name: value for name, value in row.items() if name != self._column} for row in rows]
        return fields, [_names_in(row.get(self._column)) for row in rows]


def _names_in(cell: Any) -> Any:
    """A cell's names as a list; the cell may be empty, a name, or a list."""
    if cell is None or cell == "":
        return []
    return [cell] if isinstance(cell, str) else cell


def _safe(name: str) -> str:
    """The name with every character replaced that file names may not have."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


class ImportCheckpoint:
    """The file that says how far an import is."""

    def __init__(self, db: str, collection: str, file: Path, columns: list[str | None]) -> None:
        beside = file.with_name(f"{file.name}.{_safe(db)}") if is_server(db) else Path(db)
        self.path = beside.with_name(f"{beside.name}.import-{_safe(collection)}.json")
        facts = file.stat()
        self.source = {
            "collection": collection,
            "path": str(file.resolve()),
            "size": facts.st_size,
            "mtime_ns": facts.st_mtime_ns,
            "columns": columns,
        }

    def resume_at(self, docs: vecdb.Collection) -> int:
        """Rows that an earlier run of the same import has written."""
        try:
            saved = jsonlib.loads(self.path.read_text(encoding="utf-8"))
            if saved["source"] == self.source and docs.get([saved["last_id"]])[0] is not None:
                return int(saved["rows"])
        except (FileNotFoundError, ValueError, KeyError, InvalidArgument):
            pass
        return 0

    def write(self, rows: int, last_id: int | str) -> None:
        """Replace the file as a whole. It need not be synced: with an older one some batches are only written again."""
        fresh = self.path.with_name(self.path.name + ".tmp")
        fresh.write_text(jsonlib.dumps({"source": self.source, "rows": rows, "last_id": last_id}), encoding="utf-8")
        os.replace(fresh, self.path)

    def done(self) -> None:
        self.path.unlink(missing_ok=True)


def _import_hnswlib(
    database: vecdb.Database, collection: str, file: Path, metric: str | None, dim: int | None
) -> vecdb.Collection:
    if metric is None:
        raise typer.BadParameter("an hnswlib file does not say its metric: give --metric l2, cosine or ip")
    from vecdb.integrations import hnswlib

    hnswlib.import_hnswlib(database, collection, file, metric, dim=dim)
    return database.collection(collection)


# -- export ----------------------------------------------------------------------------------------


def _row(record: vecdb.Record, tenant_column: str | None) -> dict[str, Any]:
    if tenant_column is None:
        return record.fields
    if tenant_column in record.fields:
        raise InvalidArgument(f"--tenant-column {tenant_column!r} is the name of a field: write another column")
    return {**record.fields, tenant_column: record.tenants}


def _open_ids_file(path: Path | None) -> Any:
    return open(path or os.devnull, "w", encoding="utf-8")
