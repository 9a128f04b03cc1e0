"""dataset list, info, export: data sets to try and measure vecdb with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vecdb.cli.options import DatasetFolder, Json
from vecdb.cli.output import Output, facts, size, table

HELP = "Data sets to try and measure with: list them, look at one, write one for another program."


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
    name: Annotated[str, typer.Argument(help="A name of `dataset list`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    format: Annotated[
        str, typer.Option(help="ann-benchmarks (queries and truth included), or a format of vectors such as fbin.")
    ] = "ann-benchmarks",
    part: Annotated[str, typer.Option(help="Other formats: base or queries.")] = "base",
    k: Annotated[int, typer.Option(help="ann-benchmarks: true neighbours per query.")] = 100,
    folder: DatasetFolder = None,
    json: Json = False,
) -> None:
    """Write a data set as a file for another program."""
    from vecdb_datasets import export_ann_benchmarks, load, write_vectors

    if part not in ("base", "queries"):
        raise typer.BadParameter(f"--part {part!r}: expected base or queries")
    output = Output(json)
    data = load(name, folder)
    with output.waiting(f"writing {out}"):
        if format == "ann-benchmarks":
            export_ann_benchmarks(data, out, k=k)
        else:
            write_vectors(out, data.base if part == "base" else data.queries, format=format)
    result = {"file": str(out), "bytes": out.stat().st_size}

    def show(console: Console) -> None:
        console.print(f"{size(out.stat().st_size)} in {out}")

    output.emit(result, show)


COMMANDS: dict[str, Callable[..., Any]] = {"list": list_, "info": info, "export": export}
