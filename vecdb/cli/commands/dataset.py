"""dataset list, info, get, export: data sets to try and measure vecdb with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vecdb.cli.options import DatasetFolder, Json
from vecdb.cli.output import Output, facts, size, table

HELP = "Data sets to try and measure with: list them, look at one, fetch one, write one for another program."


def list_(folder: DatasetFolder = None, json: Json = False) -> None:
    """List the data sets that have names."""
    from vecdb_datasets import list_datasets

    found = [asdict(info) for info in list_datasets(folder)]
    columns = ["name", "description", "source", "available"]
    Output(json).emit(found, lambda c: c.print(table(columns, [[row[name] for name in columns] for row in found])))


def info(
    name: Annotated[str, typer.Argument(help="A name of `dataset list`, or an HDF5 file of ann-benchmarks.")],
    folder: DatasetFolder = None,
    json: Json = False,
) -> None:
    """Show the shape, metric and extras of a data set."""
    from vecdb_datasets import load

    data = load(name, folder)
    result: dict[str, Any] = {
        **data.facts(),
        "truth": data.truth.k if data.truth is not None else None,
        "ids": type(data.ids[0]).__name__ if data.ids is not None else "row numbers",
        "extras": sorted(data.extras),
    }
    Output(json).emit(result, lambda console: console.print(facts(result)))


def export(
    name: Annotated[str, typer.Argument(help="A name of `dataset list`, or an HDF5 file of ann-benchmarks or VIBE.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; big-ann, vectordbbench: a new folder.")],
    format: Annotated[
        str,
        typer.Option(
            help="ann-benchmarks, vibe, big-ann or vectordbbench (rows, queries and truth, as each of them reads it), "
            "or a format of vectors such as fbin."
        ),
    ] = "ann-benchmarks",
    part: Annotated[str, typer.Option(help="Formats of vectors: base or queries.")] = "base",
    k: Annotated[int, typer.Option(help="True neighbours per query.")] = 100,
    seed: Annotated[
        int | None, typer.Option(help="Shuffle the queries: some sets have the easy ones first. Their order if none.")
    ] = None,
    folder: DatasetFolder = None,
    json: Json = False,
) -> None:
    """Write a data set as files for another program."""
    import vecdb_datasets as sets

    if part not in ("base", "queries"):
        raise typer.BadParameter(f"--part {part!r}: expected base or queries")
    output = Output(json)
    data = sets.load(name, folder)
    if seed is not None:
        data = sets.shuffled(data, seed)
    whole: dict[str, Callable[..., None]] = {
        "ann-benchmarks": sets.export_ann_benchmarks, "vibe": sets.export_vibe, "big-ann": sets.export_big_ann,
        "vectordbbench": sets.export_vectordbbench,
    }  # fmt: skip
    with output.waiting(f"writing {out}"):
        if format in whole:
            whole[format](data, out, k=k)
        else:
            sets.write_vectors(out, data.base if part == "base" else data.queries, format=format)
    nbytes = sum(one.stat().st_size for one in (out.iterdir() if out.is_dir() else [out]))
    result = {"file": str(out), "bytes": nbytes}
    output.emit(result, lambda console: console.print(f"{size(nbytes)} in {out}"))


def get(
    name: Annotated[str, typer.Argument(help="A standard set: see `dataset list`.")],
    folder: Annotated[Path | None, typer.Option(help="Where to; a cache of the user's if none.")] = None,
    sha256: Annotated[str | None, typer.Option(help="The SHA-256 that it must have.")] = None,
    url: Annotated[str | None, typer.Option(help="A mirror, in the place of the public address.")] = None,
    json: Json = False,
) -> None:
    """Fetch a standard data set. Interrupted, the same command goes on where it was."""
    from vecdb_datasets import download

    output = Output(json)
    with output.progress(f"fetching {name}", "bytes") as report:
        path = download.get(name, folder, sha256=sha256, base_url=url, progress=report)
    result = {"file": str(path), "bytes": path.stat().st_size}
    output.emit(result, lambda console: console.print(f"{size(path.stat().st_size)} in {path}"))


COMMANDS: dict[str, Callable[..., Any]] = {"list": list_, "info": info, "get": get, "export": export}
