"""import and export: files of vectors in, collections out, in bounded memory.

An import writes whole batches in the file's order, and notes its progress after each (cli/imports/checkpoint.py). What
export writes, import reads back as it was (vecdb_datasets.formats.records).
"""

from __future__ import annotations

import contextlib
import json as jsonlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import vecdb
from vecdb.cli.imports.checkpoint import ImportCheckpoint
from vecdb.cli.imports.collection import Wanted, agreed, first_new_id, new_config
from vecdb.cli.imports.copying import Copying
from vecdb.cli.imports.rows import BadRows, RowReader, TenantLists, check
from vecdb.cli.options import (
    CollectionName,
    Database,
    Filter,
    Json,
    Tenants,
    Tls,
    Token,
    default_db,
    directory,
    has_database,
    opened,
    refuse_address,
)
from vecdb.cli.output import Output
from vecdb.errors import InvalidArgument, LimitExceeded, NotFound, PermissionDenied
from vecdb.schema import CollectionConfig, Curator, Flat, Hnsw, IndexConfig, Spann

batch_bytes = 8 << 20
batch_rows_max = 16_384
bad_rows_shown = 10


def import_(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Parquet, Arrow, npy, npz, safetensors, HDF5, fvecs/bvecs/ivecs, fbin/u8bin/i8bin, CSV, JSONL, JSON, "
            "GloVe, word2vec; packed or not; - for standard input; several, or patterns such as 'part-*.parquet'. Also "
            "a directory of Chroma 1.x, Qdrant's local mode or LanceDB, a Lance table, an index of faiss or usearch, "
            "what PostgreSQL's COPY or pg_dump wrote (pgvector).",
        ),
    ],
    collection: CollectionName,
    db: Database = default_db,
    metric: Annotated[
        str | None, typer.Option(help="l2, cosine or ip; the file's own if none, else l2 for whole numbers, cosine.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16, int8 or uint8; the file's own if none.")] = None,
    zero_vectors: Annotated[
        str | None,
        typer.Option(
            help="cosine: refuse or far, which takes them, with similarity 0; the file's own if none, else refuse."
        ),
    ] = None,
    index: Annotated[
        str | None, typer.Option(help="auto, flat, hnsw, spann or curator; the file's own if none, else auto.")
    ] = None,
    m: Annotated[int | None, typer.Option("--m", help="hnsw: links per node. Default: 16")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="hnsw: beam width while building. Default: 200")] = None,
    bits: Annotated[
        int | None, typer.Option(help="spann: bits of a code, a dimension: 1, 2, 4 or 8. Default: 2")
    ] = None,
    codes_bytes: Annotated[
        int | None, typer.Option(help="spann: memory for codes, in bytes; 0 keeps them on disk, all in memory if none.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="The column of ids; a.b leads into nested values. HDF5, npz: the array of ids.")
    ] = None,
    vector_column: Annotated[
        str | None,
        typer.Option(
            help="Tables: the column of vectors; data.0.embedding leads into nested values, f* is f0, f1, f2 ... "
            "Qdrant: one of several named vectors."
        ),
    ] = None,
    new_ids: Annotated[
        bool, typer.Option("--new-ids", help="No column is the id: ids go on after those that are there.")
    ] = False,
    columns: Annotated[
        str | None, typer.Option(help="Tables: columns to import as fields, with commas between; all if none.")
    ] = None,
    tenant_column: Annotated[
        str | None, typer.Option(help="Tables: the column of who may see each record, a name or a list of names.")
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", help="Who may see all of them; give it again for more.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="HDF5, npz, safetensors: the array within the file. Chroma, Qdrant, LanceDB, pg_dump: the collection "
            "or table."
        ),
    ] = None,
    format: Annotated[str | None, typer.Option(help="The file's format, where its content leaves it open.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a text that is not UTF-8, such as latin-1.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to import; all if none.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be stored, and say which.")
    ] = False,
    bad_rows: Annotated[
        Path | None, typer.Option(help="With --skip-bad: a file to write each of them into, a JSON object a line.")
    ] = None,
    hnswlib: Annotated[bool, typer.Option("--hnswlib", help="The file is an index that hnswlib saved.")] = False,
    dim: Annotated[int | None, typer.Option(help="With --hnswlib: the dimension, as a check.")] = None,
    optimize: Annotated[bool, typer.Option(help="Finish the index before returning.")] = True,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Import files of vectors, ids and fields. Interrupted, the same command goes on where it was."""
    out = Output(json)
    started = time.perf_counter()
    if tenant and tenant_column:
        raise typer.BadParameter("give one of --tenant and --tenant-column")
    if bad_rows is not None and not skip_bad:
        raise typer.BadParameter("--bad-rows goes with --skip-bad")
    losses: dict[str, str] = {}
    if hnswlib:
        told = {
            "--tenant": tenant, "--tenant-column": tenant_column, "--dtype": dtype, "--index": index, "--m": m,
            "--ef-construction": ef_construction, "--bits": bits, "--codes-bytes": codes_bytes, "--limit": limit,
            "--id-column": id_column, "--vector-column": vector_column, "--new-ids": new_ids, "--columns": columns,
            "--key": key, "--format": format, "--encoding": encoding, "--skip-bad": skip_bad,
            "--zero-vectors": zero_vectors,
        }  # fmt: skip
        result = _import_hnswlib(out, db, collection, files, metric, dim, optimize, told)
    else:
        if dim is not None:
            raise typer.BadParameter("--dim goes with --hnswlib")
        config = _index(index, m, ef_construction, bits, codes_bytes)
        wanted = Wanted(collection, metric, dtype, config, index is not None or config is not None, zero_vectors)
        names = _names(files)
        fields = (
            None
            if columns is None
            else [*filter(None, columns.split(",")), *([tenant_column] if tenant_column else [])]
        )
        with _report_file(bad_rows) as report:
            bad = BadRows(report) if skip_bad else None
            with _open(names, format, key, vector_column, id_column, new_ids, fields, encoding, skip_bad) as source:
                lists = TenantLists(source, tenant, tenant_column)
                reader = RowReader(source, lists, bad)
                said = [
                    id_column, vector_column, key, tenant_column, *(tenant or ()),
                    *(["new ids"] if new_ids else ()), *(["columns", columns] if columns is not None else ()),
                ]  # fmt: skip
                paths = [Path(name) for name in names]
                restores_tenants = not tenant and (tenant_column is None or source.facts is not None)
                job = _Import(out, db, token, tls, wanted, reader, limit, optimize, restores_tenants)
                result = job.run(ImportCheckpoint(db, collection, paths, said, source.stamp))
                losses = dict(source.losses)
        if losses:
            result["losses"] = losses
            for what, why in losses.items():
                out.note(f"not as it was: {what} ({why})")
        if bad is not None:
            result |= {"skipped": bad.count, "bad": bad.shown}
            for line in bad.shown[:bad_rows_shown]:
                out.note(f"skipped {line}")
            if bad.count > bad_rows_shown:
                out.note(f"... and {bad.count - bad_rows_shown:,} more")
    result["seconds"] = time.perf_counter() - started
    skipped = f", {result['skipped']:,} of them skipped" if result.get("skipped") else ""
    out.emit(
        result, lambda c: c.print(f"{result['rows']:,} rows in {collection!r} after {result['seconds']:.1f} s{skipped}")
    )


def export(
    collection: CollectionName,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="File to write: .parquet .jsonl .csv .npy .fbin ..., or .lance, a directory; - for standard output.",
        ),
    ],
    db: Database = default_db,
    format: Annotated[
        str | None, typer.Option(help="npy, jsonl, csv, parquet, lance, fbin ...; by the extension if none.")
    ] = None,
    filter: Filter = None,
    tenant: Tenants = None,
    tenant_column: Annotated[
        str | None, typer.Option(help="The column of who may see each record; with --tenant it is left out if none.")
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Leave out or change what the format cannot hold, and say what that was.")
    ] = False,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Write a collection, or what of it matches and tenants may see, to a file. Parquet, Lance and JSONL hold
    everything; formats of vectors only have the rest beside them, in OUT.ids.jsonl and OUT.meta.json; what CSV cannot
    hold is refused.
    """
    from vecdb_datasets.formats import CollectionFacts, create_records
    from vecdb_datasets.formats.records.facts import Columns
    from vecdb_datasets.formats.records.target import is_stdout

    if is_stdout(destination) and json:
        raise typer.BadParameter("OUT is standard output, which --json needs for its document")
    out = Output(json)
    done = 0
    with opened(db, token, tls, read_only=True) as database:
        docs = database.collection(collection)
        total = docs.count(filter=filter, tenant=tenant or None)
        access = tenant_column is not None or not tenant
        config = docs.config
        facts = CollectionFacts(
            config.elements or 1,  # a width for the column of what has no vector yet
            docs.metric,
            config.element_type,
            config.index,
            Columns() if tenant_column is None else Columns(tenants=tenant_column),
            _quotas(docs) if access and not tenant else {} if access else None,
            config.metadata,
            config.zero_vectors,
            has_dim=config.dim > 0,
        )
        writer = create_records(destination, facts, format=format, lossy=lossy)
        if tenant_column is not None and not writer.holds_access:
            writer.discard()
            raise InvalidArgument(f"{destination} cannot hold lists for --tenant-column: write jsonl or parquet")
        with writer, out.progress(f"writing {destination}", "rows") as report:
            for batch in docs.iter(batch=4096, filter=filter, include_vectors=True, tenant=tenant or None):
                writer.write(_batch(batch, facts, tenant_column, access))
                done += len(batch)
                report(done, total)
    for what, where in writer.losses.items():
        out.note(f"not as it was: {what} ({where})")
    result: dict[str, Any] = {"file": destination, "ids_file": writer.ids_file, "rows": done}
    if writer.losses:
        result["losses"] = list(writer.losses)
    if not is_stdout(destination):
        out.emit(result, lambda console: console.print(f"{done:,} rows in {destination}"))


# -- import ----------------------------------------------------------------------------------------


class _Import:
    """One import of files that are open."""

    def __init__(
        self,
        out: Output,
        db: str,
        token: str | None,
        tls: str | None,
        wanted: Wanted,
        reader: RowReader,
        limit: int | None,
        optimize: bool,
        restores_tenants: bool,
    ) -> None:
        self._out, self._db, self._token, self._tls = out, db, token, tls
        self._wanted, self._reader, self._optimize = wanted, reader, optimize
        self._restores_tenants = restores_tenants
        self._source = reader.source
        self._stop = len(self._source) if limit is None else min(limit, len(self._source))
        self._step = max(1, min(batch_rows_max, batch_bytes // (self._source.dim * self._source.dtype.itemsize)))

    def run(self, checkpoint: ImportCheckpoint) -> dict[str, Any]:
        """Import; the result of the command."""
        is_new = not has_database(self._db)
        if is_new:
            refuse_address(self._db)
            self._check_first(new_config(self._wanted, self._source))
        with opened(self._db, self._token, self._tls, make=True) as database:
            docs = self._collection(database, checked=is_new)
            first, made_ids = checkpoint.resume_at(docs)
            if self._source.has_ids:
                made_ids = None
            elif made_ids is None:
                made_ids = first_new_id(docs, self._stop)
            before = docs.count()
            copying = Copying(docs, self._reader, checkpoint, made_ids, self._out.note)
            with self._out.progress(f"importing {Path(self._source.path).name}", "rows") as report:
                copying.run(first, self._stop, self._step, report)
            self._restore_tenants(docs)
            if self._optimize:
                with self._out.progress("indexing", "rows") as report:
                    docs.optimize(progress=report)
            checkpoint.done()
            result: dict[str, Any] = {"collection": docs.name, "rows": self._stop, "resumed_at": first}
            result["live"] = docs.count()
        if made_ids:
            result["first_id"] = made_ids
        replaced = before + copying.written - result["live"]
        if self._source.has_ids and replaced > 0:
            result["replaced"] = replaced
            self._out.note(f"{replaced:,} rows have ids that were there already, and replaced those records")
        return result

    def _collection(self, database: vecdb.Database, *, checked: bool) -> vecdb.Collection:
        """The collection to import into. checked : the first batch is known to be good."""
        try:
            docs = database.collection(self._wanted.name)
        except NotFound:
            config = new_config(self._wanted, self._source)
            if not checked:
                self._check_first(config)
            return database.create_collection(
                config.name, dim=config.dim or None, metric=config.metric, dtype=config.dtype, index=config.index,
                metadata=self._source.facts.metadata if self._source.facts is not None else None,
                zero_vectors=config.zero_vectors,
            )  # fmt: skip
        agreed(docs, self._wanted, self._source)
        return docs

    def _check_first(self, config: CollectionConfig) -> None:
        """Raise what is wrong with the first batch, before anything is made."""
        if not self._stop:
            return
        skipped, self._reader.bad = self._reader.bad, None if self._reader.bad is None else BadRows()
        try:
            rows = self._reader.read(0, min(self._step, self._stop), 0)
            try:
                if len(rows):
                    check(rows, config)
            except InvalidArgument as error:
                try:
                    self._reader.without_bad(rows, config, error)
                except LimitExceeded as found:
                    if found is not error or len(rows) == 1:  # else it is merely too large for one call
                        raise
        finally:
            self._reader.bad = skipped

    def _restore_tenants(self, docs: vecdb.Collection) -> None:
        """Tenants of an exported collection that its records do not tell, and quotas."""
        facts = self._source.facts
        if self._restores_tenants and facts is not None:
            for name, records_max in (facts.tenants or {}).items():
                docs.create_tenant(name, exist_ok=True, records_max=records_max)


def _names(patterns: list[str]) -> list[str]:
    from vecdb_datasets.formats.many import expand

    return expand(patterns)


def _open(
    names: list[str],
    format: str | None,
    key: str | None,
    vector_column: str | None,
    id_column: str | None,
    new_ids: bool,
    columns: list[str] | None,
    encoding: str | None,
    skip_bad: bool,
) -> Any:
    from vecdb_datasets import open_vectors

    return open_vectors(
        names,
        format=format,
        key=key,
        vector_column=vector_column,
        id_column=id_column,
        new_ids=new_ids,
        columns=columns,
        encoding=encoding,
        lenient=skip_bad,
    )


@contextlib.contextmanager
def _report_file(path: Path | None) -> Iterator[Any]:
    """Yield a function that writes a line about a bad row; None where no file is named."""
    if path is None:
        yield None
        return
    with open(path, "w", encoding="utf-8") as handle:
        yield lambda what: handle.write(jsonlib.dumps({"error": what}, ensure_ascii=False) + "\n")


def _index(
    kind: str | None, m: int | None, ef_construction: int | None, bits: int | None, codes_bytes: int | None
) -> IndexConfig | None:
    """The index that the options name. Options of another kind of index are refused."""
    of_kind = {
        "hnsw": {"m": m, "ef_construction": ef_construction},
        "spann": {"bits": bits, "codes_bytes": codes_bytes},
    }
    for owner, options in of_kind.items():
        for name, value in options.items():
            if value is not None and kind != owner:
                option = "--" + name.replace("_", "-")
                raise typer.BadParameter(f"{option} goes with --index {owner}, --index is {kind or 'auto'}")
    if kind == "spann":
        return Spann(bits=2 if bits is None else bits, memory_budget_bytes=codes_bytes)
    if kind == "curator":
        return Curator()
    if kind == "hnsw":
        given = {name: value for name, value in of_kind["hnsw"].items() if value is not None}
        return Hnsw(**given)  # type: ignore[arg-type]
    if kind not in (None, "auto", "flat"):
        raise typer.BadParameter(f"--index {kind!r}: expected auto, flat, hnsw, spann or curator")
    return Flat() if kind == "flat" else None


def _import_hnswlib(
    out: Output,
    db: str,
    collection: str,
    files: list[str],
    metric: str | None,
    dim: int | None,
    optimize: bool,
    told: dict[str, Any],
) -> dict[str, Any]:
    """Import an index of hnswlib; the result of the command. told : options that say nothing here, and their values."""
    if told["--tenant"] or told["--tenant-column"]:
        raise typer.BadParameter("--hnswlib imports for no tenant: grant the records afterwards, see vecdb tenant")
    if any(told.values()):
        names = [name for name, value in told.items() if value]
        raise typer.BadParameter(f"--hnswlib takes all rows and the index as they are: leave out {', '.join(names)}")
    if metric is None:
        raise typer.BadParameter("an hnswlib file does not say its metric: give --metric l2, cosine or ip")
    [file, *others] = files
    if others:
        raise typer.BadParameter("--hnswlib imports one file at a time")
    from vecdb.integrations import hnswlib

    folder = directory(db, "import --hnswlib")
    if not Path(file).is_file():
        raise NotFound(f"{file}: no such file")
    with vecdb.open(folder) as database, out.waiting(f"reading {file}"):
        hnswlib.import_hnswlib(database, collection, file, metric, dim=dim)
        docs = database.collection(collection)
        if optimize:
            docs.optimize()
        return {"collection": collection, "rows": docs.count(), "resumed_at": 0}


# -- export ----------------------------------------------------------------------------------------


def _quotas(docs: vecdb.Collection) -> dict[str, int | None] | None:
    """Tenants that the records do not tell: with a quota, or without records. None where the caller may not ask."""
    found: dict[str, int | None] = {}
    try:
        for name in docs.tenants():
            try:
                stats = docs.stats(tenant=name)
            except NotFound:  # dropped meanwhile
                continue
            if stats["records"] == 0 or stats["records_max"] is not None:
                found[name] = stats["records_max"]
    except PermissionDenied:
        return {}
    return found


def _batch(records: list[vecdb.Record], facts: Any, tenant_column: str | None, access: bool) -> Any:
    from vecdb_datasets.formats.records.writer import RecordBatch

    if tenant_column is not None and any(tenant_column in record.fields for record in records):
        raise InvalidArgument(f"--tenant-column {tenant_column!r} is the name of a field: write another column")
    bare = [record.vector is None for record in records]
    nothing = np.zeros(facts.dim, facts.dtype)
    return RecordBatch(
        [record.id for record in records],
        np.stack([nothing if record.vector is None else record.vector for record in records]),
        [record.fields for record in records],
        [record.owner for record in records],
        [record.tenants if access else [] for record in records],
        bare if any(bare) else None,
    )
