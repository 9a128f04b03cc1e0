"""bench run, ingest, interference, threads, disk, tenants, filters, serve, cluster, mixture, coldstart, compare, plot,
keep, figures: benchmarks as commands.
"""

from __future__ import annotations

import json as jsonlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vecdb.cli.options import DatasetFolder, Json, Limit
from vecdb.cli.output import Output
from vecdb.errors import InvalidArgument

HELP = "Measure vecdb, beside its peers where there are any. Each result is a JSON file that names the machine."

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the result.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of every measurement; the best counts.")]
DiskFolder = Annotated[Path | None, typer.Option("--path", help="Folder on the disk to measure.")]
Clock = Annotated[str, typer.Option(help="wall, or cpu: processor time, where others use the machine as well.")]
results_folder = Path("bench-results")


def run(
    dataset: Annotated[str, typer.Option(help="A name of `dataset list`, or an ann-benchmarks file.")] = "glove-50",
    peers: Annotated[str, typer.Option(help="Names, with commas, or all; a wrong one tells which there are.")] = "",
    limit: Limit = 10,
    ef: Annotated[str, typer.Option(help="Beam widths to sweep, with commas between.")] = "",
    m: Annotated[int, typer.Option("--m", help="Links per node, of every peer.")] = 16,
    ef_construction: Annotated[int, typer.Option(help="Beam width while building, of every peer.")] = 200,
    threads: Annotated[int, typer.Option(help="Threads that build; searches use one.")] = os.cpu_count() or 1,
    rounds: Rounds = 3,
    rows: Annotated[int | None, typer.Option(help="Only the first rows of the data set.")] = None,
    queries: Annotated[int | None, typer.Option(help="Only the first queries of the data set.")] = None,
    clock: Clock = "wall",
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Recall against queries per second, build time, memory and disk, peers measured alternately in one run.
    Those that are missing, have not the metric or fail are named; killed, and be it by a peer, the same command goes on
    where it was.
    """
    from vecdb_bench import runner
    from vecdb_bench.peers import chosen
    from vecdb_bench.reporting import results

    output = Output(json)
    if not results.can_plot():
        output.note("there will be no plot: matplotlib is not installed")
    plan = runner.Plan(
        dataset=dataset,
        peers=chosen(_words(peers)),
        m=m,
        ef_construction=ef_construction,
        limit=limit,
        efs=_numbers(ef) or runner.sweep_default,
        rounds=rounds,
        threads=threads,
        rows=rows,
        queries=queries,
        clock=clock,
        folder=str(folder) if folder else None,
    )
    result = runner.run(plan, output.note, out)
    file = _finish(output, result, out)
    if results.can_plot():
        output.note(f"plot {results.plot(result, file.with_suffix('.png'))}")


def ingest(
    path: DiskFolder = None,
    dim: Annotated[int, typer.Option(help="Dimension of the vectors.")] = 384,
    threads: Annotated[int, typer.Option(help="Threads that write one record a call.")] = 16,
    seconds: Annotated[float, typer.Option(help="Seconds of each round of single records.")] = 5.0,
    batch_rows: Annotated[int, typer.Option(help="Rows of a batch.")] = 1_000,
    batches: Annotated[int, typer.Option(help="Batches of a round.")] = 30,
    sustained_batches: Annotated[int, typer.Option(help="Batches that the graph must keep up with.")] = 100,
    rounds: Rounds = 3,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Durable writes: single records from many threads, batches, and batches with the graph keeping up."""
    arguments = dict(locals())
    from vecdb_bench.ingest import ingest as measure

    _measure(measure, arguments)


def interference(
    path: DiskFolder = None,
    dataset: Annotated[str, typer.Option(help="A name of `dataset list`.")] = "glove-50",
    rows: Annotated[int, typer.Option(help="Rows that are there before the writer starts.")] = 100_000,
    batch_rows: Annotated[int, typer.Option(help="Rows of a batch.")] = 1_000,
    seconds: Annotated[float, typer.Option(help="Seconds of each idle and each busy stretch.")] = 5.0,
    rounds: Rounds = 3,
    limit: Limit = 10,
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Latency of searches in one thread, without and with another thread that upserts batches."""
    arguments = dict(locals())
    from vecdb_bench.calls.interference import interference as measure

    _measure(measure, arguments)


def threads(
    base: Annotated[Path | None, typer.Option(help="Tree of another commit, measured in turns with this one.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="A .npy or .u8bin file; else clustered ones are made.")] = None,
    rows: Annotated[int, typer.Option(help="Rows that are searched.")] = 200_000,
    metric: Annotated[str, typer.Option(help="l2, cosine or ip.")] = "l2",
    seconds: Annotated[float, typer.Option(help="Seconds of each measurement.")] = 1.0,
    counts: Annotated[str, typer.Option(help="How many threads and processes, with commas between.")] = "1,2,4,8,16",
    processes: Annotated[bool, typer.Option(help="Reading processes as well as threads.")] = True,
    rounds: Rounds = 3,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Single searches from many threads of one process, and from as many processes that read."""
    arguments = dict(locals())
    arguments |= {"counts": _numbers(counts), "base": base and str(base), "vectors": vectors and str(vectors)}
    from vecdb_bench.calls.threads import threads as measure

    _measure(measure, arguments)


def disk(
    dataset: Annotated[str, typer.Option(help="A name of `dataset list`, or a file of vectors.")] = "sift-photos",
    queries: Annotated[int, typer.Option(help="Queries; of a file, its last rows.")] = 1_000,
    rows: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
    metric: Annotated[str | None, typer.Option(help="Of a file: l2, cosine or ip.")] = None,
    bits: Annotated[int, typer.Option(help="Bits of a code, a dimension.")] = 2,
    codes_bytes: Annotated[
        int | None, typer.Option(help="Memory for codes; 0: on disk, all in memory if none.")
    ] = None,
    nprobe: Annotated[str, typer.Option(help="Numbers of lists to sweep, with commas between.")] = "",
    peers: Annotated[
        str,
        typer.Option(help="NAME=PYTHON,...: diskannpy-rust, zvec, lancedb-rq, lancedb-hnsw, vecdb-codes-on-disk."),
    ] = "",
    limit: Limit = 10,
    threads: Annotated[int, typer.Option(help="Threads that build; searches use one.")] = os.cpu_count() or 1,
    rounds: Rounds = 3,
    path: DiskFolder = None,
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Posting lists on disk: recall against latency, reads, memory and disk, beside peers in turns."""
    from vecdb.cli.disk_speed import random_reads
    from vecdb_bench import disk as bench_disk

    output = Output(json)
    plan = bench_disk.Plan(
        dataset=dataset,
        queries=queries,
        rows=rows,
        metric=metric,
        limit=limit,
        rounds=rounds,
        threads=threads,
        peers=dict(_pair(word) for word in _words(peers)),
        vecdb={"bits": bits, "memory_budget_bytes": codes_bytes},
        sweep=_numbers(nprobe),
        folder=str(folder) if folder else None,
        path=str(path) if path else None,
    )
    _finish(output, bench_disk.run(plan, random_reads, output.note), out)


def _pair(word: str, option: str = "--peers", wanted: str = "NAME=PYTHON") -> tuple[str, str]:
    name, _, value = word.partition("=")
    if not value:
        raise typer.BadParameter(f"{option} {word!r}: expected {wanted}")
    return name, value


def mixture(
    dataset: Annotated[str, typer.Option(help="A data set whose rows have tags.")] = "summaries",
    index: Annotated[str, typer.Option(help="flat, hnsw, spann or curator.")] = "hnsw",
    users: Annotated[int, typer.Option(min=1, help="Users that ask.")] = 200,
    rows: Annotated[int, typer.Option(min=2, help="Rows of a user; half of them are held out.")] = 20,
    tags: Annotated[int, typer.Option(min=1, help="Tags that they are drawn from.")] = 3,
    limit: Limit = 100,
    components: Annotated[int, typer.Option(min=1, help="Components of a mixture.")] = 8,
    smoothing: Annotated[float, typer.Option(min=0, max=1, help="Share of the users most alike.")] = 0.3,
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Diversity and recall of held-out rows: a user's interests each in its share, beside one search by the mean."""
    arguments = dict(locals())
    from vecdb_bench import mixture as bench_mixture

    _measure(lambda say, **settings: bench_mixture.run(bench_mixture.Plan(**settings), say), arguments)


def tenants(
    dataset: Annotated[
        str, typer.Option(help="summaries (in --folder), or tenants-<n>x<dim>[-correlated][-count<t>][-seed<s>].")
    ] = "summaries",
    rows: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
    index: Annotated[str, typer.Option(help="Kind of vecdb's index: curator, hnsw, spann or flat.")] = "hnsw",
    options: Annotated[str, typer.Option(help="Parameters of the index as a JSON object.")] = "{}",
    parameter: Annotated[str, typer.Option(help="What is swept: ef, nprobe or recall; the index's own if none.")] = "",
    sweep: Annotated[str, typer.Option(help="Its values by rising recall, with commas between, or `default`.")] = "",
    peers: Annotated[str, typer.Option(help="hnswlib-100, hnswlib-200, faiss, numpy, with commas between.")] = (
        "hnswlib-100,hnswlib-200,faiss,numpy"
    ),
    measures: Annotated[
        str, typer.Option(help="search, memory, union, growth, sizes, writes, many, with commas between; all if none.")
    ] = "",
    queries: Annotated[int, typer.Option(help="Searches of every point.")] = 3_000,
    limit: Limit = 10,
    threads: Annotated[int, typer.Option(help="Threads that build; searches use one.")] = os.cpu_count() or 1,
    together: Annotated[
        bool, typer.Option("--together", help="All that `search` compares in one process, not one each.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is asked of whom.")] = 1,
    clock: Clock = "wall",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: shape, not speed.")] = False,
    path: DiskFolder = None,
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Many tenants in one collection: latency, memory, growth, unions, durable writes, a million tenants."""
    from vecdb_bench import tenants as bench_tenants

    output = Output(json)
    plan = bench_tenants.Plan(
        dataset=dataset,
        folder=str(folder) if folder else None,
        rows=rows,
        index=index,
        options=_object(options),
        parameter=parameter,
        sweep=_values(sweep),
        peers=tuple(_words(peers)),
        measures=tuple(_words(measures)) or bench_tenants.MEASURES,
        queries=queries,
        limit=limit,
        threads=threads,
        seed=seed,
        path=str(path) if path else None,
        together=together,
        clock=clock,
    )
    _finish(output, bench_tenants.run(plan.quick() if quick else plan, output.note), out)


def filters(
    dataset: Annotated[str, typer.Option(help="A name of `dataset list`.")] = "glove-50",
    rows: Annotated[int | None, typer.Option(help="Only the first rows.")] = 100_000,
    queries: Annotated[int, typer.Option(min=1, help="Queries of every condition.")] = 20,
    kinds: Annotated[str, typer.Option(help="Of index: flat, hnsw, spann, curator; all if none.")] = "",
    peers: Annotated[
        str,
        typer.Option(
            help="hnswlib, faiss-hnsw, faiss-flat, lancedb, zvec, qdrant-edge, qdrant-edge-acorn; all if none."
        ),
    ] = "",
    measures: Annotated[str, typer.Option(help="cells, peers, bitmaps, with commas between; all if none.")] = "",
    recall: Annotated[float, typer.Option(help="Recall that every peer is to reach.")] = 0.95,
    rounds: Rounds = 3,
    bitmap_rows: Annotated[
        int, typer.Option(min=1, help="Records over which filters alone are evaluated.")
    ] = 1_000_000,
    threads: Annotated[int, typer.Option(help="Threads that build; searches use one.")] = os.cpu_count() or 1,
    clock: Clock = "wall",
    kept: Annotated[
        Path | None, typer.Option(help="Folder of the indexes, for the next run; made where there is none.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: shape, not speed.")] = False,
    path: DiskFolder = None,
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Searches with filters, at every share that matches, near and far from the query, beside peers in turns."""
    from vecdb_bench import filters as bench_filters
    from vecdb_bench.filters import plot as filters_plot
    from vecdb_bench.reporting import results

    output = Output(json)
    plan = bench_filters.Plan(
        dataset=dataset,
        folder=str(folder) if folder else None,
        rows=rows,
        queries=queries,
        kinds=tuple(_words(kinds)) or bench_filters.KINDS,
        peers=tuple(_words(peers)) or tuple(bench_filters.PEERS),
        measures=tuple(_words(measures)) or bench_filters.MEASURES,
        recall=recall,
        rounds=rounds,
        bitmap_rows=bitmap_rows,
        threads=threads,
        clock=clock,
        kept=str(kept) if kept else None,
        path=str(path) if path else None,
    )
    result = bench_filters.run(plan.quick() if quick else plan, output.note)
    file = _finish(output, result, out)
    if "peers" in result and results.can_plot():
        for drawn in filters_plot.plot(result, file.with_suffix("")):
            output.note(f"plot {drawn}")


def serve(
    dataset: Annotated[str, typer.Option(help="A name of `dataset list`.")] = "glove-50",
    rows: Annotated[int | None, typer.Option(help="Only the first rows.")] = None,
    queries: Annotated[int, typer.Option(help="Queries that are asked; the index is tuned on others.")] = 1_000,
    recall: Annotated[float, typer.Option(help="Recall that every engine is tuned to.")] = 0.95,
    measures: Annotated[
        str,
        typer.Option(
            help="single, rate, batch, stream, variants, peers, ingest, overload, workers, with commas; all if none."
        ),
    ] = "",
    clients: Annotated[str, typer.Option(help="Clients of the closed loop, with commas between.")] = "16,64",
    peers: Annotated[str, typer.Option(help="NAME=PYTHON,...: milvus-lite and who runs it.")] = "",
    variant: Annotated[
        list[str] | None, typer.Option(help="NAME=FLAGS of `vecdb serve`, beside the server without; repeatable.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds of a turn.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of every measurement; the median counts.")] = 5,
    limit: Limit = 10,
    workers: Annotated[str, typer.Option(help="Servers of so many workers each, with commas between.")] = "1,2",
    worker_clients: Annotated[str, typer.Option(help="Client processes for these, with commas between.")] = "1,4,16",
    cores: Annotated[int, typer.Option(min=0, help="Cores that server and load share; 0: all.")] = 2,
    overload_seconds: Annotated[float, typer.Option(help="Seconds at many times the capacity.")] = 60.0,
    kept: Annotated[
        Path | None, typer.Option(help="Database of this data that stays for the next run; made where there is none.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: shape, not speed.")] = False,
    path: DiskFolder = None,
    folder: DatasetFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """The gRPC service: latency, rate, streams, ingest and overload, beside an echo, the embedded call and a peer."""
    from vecdb_bench import serving

    output = Output(json)
    plan = serving.Plan(
        dataset=dataset,
        folder=str(folder) if folder else None,
        rows=rows,
        queries=queries,
        limit=limit,
        recall=recall,
        rounds=rounds,
        seconds=seconds,
        clients=_numbers(clients),
        measures=tuple(_words(measures)) or serving.MEASURES,
        peers=dict(_pair(word) for word in _words(peers)),
        variants=dict(_pair(word, "--variant", "NAME=FLAGS") for word in variant or ()),
        workers=_numbers(workers),
        worker_clients=_numbers(worker_clients),
        cores=cores,
        overload_seconds=overload_seconds,
        kept=str(kept) if kept else None,
        path=str(path) if path else None,
    )
    _finish(output, serving.run(plan.quick() if quick else plan, output.note), out)


def cluster(
    measures: Annotated[
        str,
        typer.Option(
            help="backup, beside, open, promote, visible, router, lists, jobs, with commas between; all if none."
        ),
    ] = "",
    dataset: Annotated[str | None, typer.Option(help="A name of `dataset list`; clustered bytes if none.")] = None,
    rows: Annotated[
        int | None, typer.Option(help="Of the database; if none, as many as each measure is made for.")
    ] = None,
    dim: Annotated[int, typer.Option(help="Dimension of its vectors, of bytes.")] = 128,
    shards: Annotated[int, typer.Option(min=0, help="0: as many as each measure is made for.")] = 0,
    index: Annotated[str, typer.Option(help="Of `jobs`: hnsw or spann.")] = "hnsw",
    queries: Annotated[int | None, typer.Option(help="If none, as many as each measure is made for.")] = None,
    batch: Annotated[int, typer.Option(help="Queries of a call of `router`.")] = 20_000,
    recall: Annotated[float, typer.Option(help="Recall that `lists` is to reach.")] = 0.95,
    limit: Limit = 10,
    seconds: Annotated[float, typer.Option(help="Seconds of a turn.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of what is measured in turns.")] = 5,
    writes: Annotated[int, typer.Option(min=1, help="Writes of `visible`.")] = 150,
    store: Annotated[
        str | None, typer.Option(help="URL of an empty place in a bucket for backups and logs; a folder if none.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: shape, not speed.")] = False,
    path: DiskFolder = None,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Backups, copies that take over, shards behind one address, jobs over Ray: times, rates, bytes, memory."""
    from vecdb_bench import cluster as bench_cluster

    output = Output(json)
    plan = bench_cluster.Plan(
        measures=tuple(_words(measures)) or bench_cluster.MEASURES,
        dataset=dataset,
        rows=rows,
        dim=dim,
        shards=shards,
        index=index,
        queries=queries,
        batch=batch,
        recall=recall,
        limit=limit,
        seconds=seconds,
        rounds=rounds,
        writes=writes,
        store=store,
        path=str(path) if path else None,
    )
    _finish(output, bench_cluster.run(plan.quick() if quick else plan, output.note), out)


def _values(text: str) -> tuple[float | None, ...]:
    try:
        return tuple(
            None if word == "default" else int(word) if word.isdigit() else float(word) for word in _words(text)
        )
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected numbers, or `default`, with commas between") from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = jsonlib.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{text!r}: expected a JSON object")
    return found


def coldstart(
    rows: Annotated[int, typer.Option(help="Rows of the database that is opened.")] = 20_000,
    dim: Annotated[int, typer.Option(help="Dimension of its vectors.")] = 50,
    rounds: Rounds = 3,
    out: Out = results_folder,
    json: Json = False,
) -> None:
    """Seconds from the start of a process: import, first search on an empty cache, first search of the next process."""
    arguments = dict(locals())
    from vecdb_bench.coldstart import coldstart as measure

    _measure(measure, arguments)


def compare(
    before: Annotated[Path, typer.Argument(help="A JSON file that `bench run` wrote.")],
    after: Annotated[Path, typer.Argument(help="Another, of the same data.")],
    peer: Annotated[str, typer.Option(help="The peer that is compared with itself.")] = "vecdb",
    strict: Annotated[bool, typer.Option("--strict", help="Fail where it became slower, or its recall worse.")] = False,
    json: Json = False,
) -> None:
    """Say whether one result is faster than another, beyond what measurements differ by themselves."""
    from vecdb_bench.reporting import compare as comparing
    from vecdb_bench.reporting import results

    output = Output(json)
    found = comparing.compare(_result_of_run(before), _result_of_run(after), peer)
    output.emit(found, lambda console: results.show(found, console))
    for note in found["notes"]:
        output.note(note)
    if strict and any(row["verdict"] in ("slower", "worse") for rows in found["tables"].values() for row in rows):
        raise typer.Exit(1)


def _result_of_run(file: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = jsonlib.loads(file.read_text(encoding="utf-8"))
        if loaded["benchmark"] != "run":
            raise KeyError
    except (ValueError, KeyError, TypeError):
        raise InvalidArgument(f"{file} is no result of `vecdb bench run`") from None
    return loaded


def plot(
    result: Annotated[Path, typer.Argument(help="A JSON file that `bench run` wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="PNG to write; beside the JSON if none.")] = None,
    json: Json = False,
) -> None:
    """Draw a result of `bench run` again."""
    from vecdb_bench.reporting import results

    drawn = results.plot(_result_of_run(result), out or result.with_suffix(".png"))
    Output(json).emit({"plot": str(drawn)}, lambda console: console.print(str(drawn)))


def keep(
    result: Annotated[Path, typer.Argument(help="A JSON file that a command of `bench` wrote.")],
    name: Annotated[str, typer.Argument(help="Its name among those that README shows.")],
    commit: Annotated[str, typer.Option(help="Commit of the tree that was measured.")],
    command: Annotated[str | None, typer.Option(help="What was run, where the result does not say.")] = None,
    root: Annotated[Path, typer.Option(help="A checkout of vecdb.")] = Path("."),
    json: Json = False,
) -> None:
    """Keep a result in bench/results of a checkout, without names of hosts and folders."""
    from vecdb_bench.figures import kept

    try:
        found = jsonlib.loads(result.read_text(encoding="utf-8"))
        said = command or found.get("command")
    except (ValueError, AttributeError):
        raise InvalidArgument(f"{result} is no result of `vecdb bench`") from None
    if not said:
        raise InvalidArgument(f"{result} does not say what was run: give --command")
    file = root / "bench" / "results" / f"{name}.json"
    kept.write(kept.of_result(found, said, commit), file)
    Output(json).emit({"file": str(file)}, lambda console: console.print(str(file)))


def figures(
    root: Annotated[Path, typer.Option(help="A checkout of vecdb.")] = Path("."),
    json: Json = False,
) -> None:
    """Draw the plots of README and write its tables, from the results that are kept in a checkout."""
    from vecdb_bench.figures import page

    changed = [str(file) for file in page.make(root)]
    Output(json).emit({"changed": changed}, lambda console: console.print("\n".join(changed) or "nothing has changed"))


def _measure(measure: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> None:
    """arguments : of a command. All but `json` and `out` are those of `measure`."""
    output, out = Output(arguments.pop("json")), arguments.pop("out")
    if arguments.get("folder") is not None:
        arguments["folder"] = str(arguments["folder"])
    _finish(output, measure(**arguments, say=output.note), out)


def _finish(output: Output, result: dict[str, Any], folder: Path) -> Path:
    from vecdb_bench.reporting import results

    result |= {"command": shlex.join(["vecdb", *sys.argv[1:]])}
    file = results.write(result, folder)
    output.emit(result | {"file": str(file)}, lambda console: results.show(result, console))
    output.note(f"result {file}")
    return file


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(int(word) for word in _words(text)))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected whole numbers with commas between") from None


COMMANDS: dict[str, Callable[..., Any]] = {
    "run": run,
    "ingest": ingest,
    "interference": interference,
    "threads": threads,
    "disk": disk,
    "tenants": tenants,
    "filters": filters,
    "serve": serve,
    "cluster": cluster,
    "mixture": mixture,
    "coldstart": coldstart,
    "compare": compare,
    "plot": plot,
    "keep": keep,
    "figures": figures,
}
