"""warmup, backup, backups, restore, promote, vacuum, upgrade."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli.options import Database, Json, OptionalCollection, Tls, Token, default_db, directory, opened
from vecdb.cli.output import Output, facts, table
from vecdb.errors import InvalidArgument
from vecdb.replication.bucket import is_url
from vecdb.wire.addresses import is_remote


def warmup(
    db: Annotated[str | None, typer.Option("--db", help="Warm what this database needs.")] = None,
    dim: Annotated[int, typer.Option(help="Without --db: dimension to compile for.")] = 384,
    metric: Annotated[str, typer.Option(help="Without --db: l2, cosine or ip.")] = "cosine",
    dtype: Annotated[str, typer.Option(help="Without --db: float32, float16, int8 or uint8.")] = "float32",
    json: Json = False,
) -> None:
    """Compile the kernels now, so that the first search need not; the machine code is cached for later processes."""
    out = Output(json)
    started = time.perf_counter()
    shapes: set[tuple[int, str, str]] = {(dim, metric, dtype)}
    if db is not None:
        with vecdb.open(directory(db, "warmup"), read_only=True) as database:
            found = [database.collection(name) for name in database.collections()]
            shapes = {(docs.dim, docs.metric, docs.dtype) for docs in found}
    with out.progress("compiling") as report:
        for done, (dim, metric, dtype) in enumerate(sorted(shapes)):
            report(done, len(shapes))
            vecdb.warm_up(dim, metric, dtype)
        report(len(shapes), len(shapes))
    seconds = time.perf_counter() - started
    result = {"compiled": [{"dim": d, "metric": m, "dtype": t} for d, m, t in sorted(shapes)], "seconds": seconds}
    out.emit(result, lambda console: console.print(f"kernels ready for {len(shapes)} shapes in {seconds:.1f} s"))


def backup(
    destination: Annotated[
        str,
        typer.Argument(
            help="A directory that is not there yet; s3://bucket/prefix, gs://, az:// or file:///folder for what has "
            "changed; of a server, a name in its folder for backups."
        ),
    ],
    db: Database = default_db,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Then remove older backups of this database beside it; so many are left."),
    ] = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Copy a database as it is at one moment, with checksums, while others read and write it."""
    out = Output(json)
    started = time.perf_counter()
    with opened(db, token, tls, read_only=True) as database, out.progress("copying") as report:
        database.backup(destination, keep=keep, progress=report)
    result: dict[str, Any] = {"destination": destination, "seconds": time.perf_counter() - started}
    if not is_remote(db) and not is_url(destination):
        result["bytes"] = _bytes_under(Path(destination))
    out.emit(result, lambda console: console.print(facts(result)))


def backups(
    url: Annotated[str, typer.Argument(help="Where they are: s3://bucket/prefix and the like.")],
    json: Json = False,
) -> None:
    """List the backups in a bucket, the oldest first."""
    document = [{**one, "time": one["time"].isoformat(timespec="microseconds")} for one in vecdb.backups(url)]
    columns = ["time", "sequence", "bytes", "database"]
    rows = [[one[name] for name in columns] for one in document]
    Output(json).emit(document, lambda console: console.print(table(columns, rows)))


def restore(
    source: Annotated[
        str, typer.Argument(help="A directory that backup wrote, a URL into which it wrote, or that of a log.")
    ],
    destination: Annotated[Path, typer.Argument(help="Where the database shall be.")],
    at: Annotated[
        str | None,
        typer.Option(help="Of a URL: what is not later than this commit, or time (2026-01-31T12:00:00)."),
    ] = None,
    json: Json = False,
) -> None:
    """Verify a backup and put it in place as a database."""
    out = Output(json)
    with out.waiting("verifying and copying"):
        vecdb.restore(source, destination, at=None if at is None else _moment(at))
    result = {"destination": str(destination), "bytes": _bytes_under(destination)}
    out.emit(result, lambda c: c.print(f"{destination} is ready"))


def promote(
    path: Annotated[Path, typer.Argument(help="The directory of a copy that no process has open.")],
    log: Annotated[str, typer.Argument(help="The bucket that it follows, s3://bucket/prefix.")],
    json: Json = False,
) -> None:
    """Make a copy the database that is written: whoever wrote it before is refused from then on."""
    out = Output(json)
    with out.waiting("taking over"):
        newest = vecdb.promote(path, log)
    out.emit(
        {"path": str(path), "sequence": newest},
        lambda c: c.print(f"{path} is the database from commit {newest} on: serve it with --log {log}"),
    )


def vacuum(
    db: Database = default_db,
    collection: OptionalCollection = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Give back the space of deleted and replaced records."""
    out = Output(json)
    with opened(db, token, tls) as database, out.progress("vacuuming") as report:
        before = database.stats()["bytes_disk"]
        (database.collection(collection) if collection else database).vacuum(progress=report)
        result = {"bytes_before": before, "bytes_after": database.stats()["bytes_disk"]}
    out.emit(result, lambda console: console.print(facts(result)))


def upgrade(db: Database = default_db, json: Json = False) -> None:
    """Bring a database of the version before to this one's format, which older versions cannot open."""
    changed = vecdb.upgrade(db)
    Output(json).emit(
        {"upgraded": changed},
        lambda console: console.print(f"{db} {'is upgraded' if changed else 'is of this format'}"),
    )


def _moment(at: str) -> int | datetime:
    """A commit, or a time, without a zone that of this machine."""
    if at.isdecimal():
        return int(at)
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        raise InvalidArgument(
            f"--at is the number of a commit or a time such as 2026-01-31T12:00:00, got {at!r}"
        ) from None
    return time if time.tzinfo is not None else time.astimezone()


def _bytes_under(folder: Path) -> int:
    """Disk space that a directory uses: blocks in use, not the apparent size of sparse files."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
