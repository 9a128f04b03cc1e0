"""cluster build, search, evaluate, reshape: jobs over all shards, on Ray."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from vecdb.cli.cluster.servers import Cluster, Ray
from vecdb.cli.options import CollectionName, Filter, Json, Limit, Tls, Token
from vecdb.cli.output import Output, facts
from vecdb.errors import InvalidArgument
from vecdb.schema import IndexConfig, SearchParams

_KINDS: dict[str, type[IndexConfig]] = {config.kind: config for config in get_args(IndexConfig)}
Work = Annotated[str | None, typer.Option(help="Folder on each machine for directories meanwhile. Default: temporary")]
Cores = Annotated[int | None, typer.Option("--cpus", min=1, help="Of a Ray of this process. Default: all")]
Each = Annotated[int, typer.Option(min=1, help="Cores for the index of one shard.")]
Queries = Annotated[list[str], typer.Argument(help="Files of queries: npy, Parquet, fvecs ...")]
Exact = Annotated[bool, typer.Option("--exact", help="Compare with every vector.")]
Width = Annotated[int | None, typer.Option(help="ef of graphs, nprobe of lists. Default: learned")]


def build(
    cluster: Cluster,
    files: Annotated[list[str], typer.Argument(help="Files of vectors that every machine reaches, or patterns.")],
    collection: CollectionName,
    shards: Annotated[int, typer.Option(min=1, help="How many.")],
    metric: Annotated[str | None, typer.Option(help="l2, cosine or ip. Default: as the file says, else cosine")] = None,
    index: Annotated[str | None, typer.Option(help="flat, hnsw, spann or curator. Default: by size")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16, int8 or uint8. Default: of the file")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Column of ids.")] = None,
    vector: Annotated[str | None, typer.Option("--vector", help="Column of vectors.")] = None,
    ray: Ray = None,
    cpus: Cores = None,
    cpus_each: Each = 1,
    work: Work = None,
    json: Json = False,
) -> None:
    """Make a cluster of a collection from files: its shards are built side by side, and lie in the bucket then."""
    from vecdb.ray.building import build as run
    from vecdb.ray.session import RayOptions

    out = Output(json)
    with out.progress("building") as report:
        result = run(
            cluster, collection, files, shards=shards, metric=metric, index=_index(index), dtype=dtype, id=id,
            vector=vector, on=RayOptions(ray, cpus, cpus_each, work, report),
        )  # fmt: skip
    out.emit(result, lambda console: console.print(facts(result)))


def search(
    cluster: Cluster,
    queries: Queries,
    collection: CollectionName,
    out: Annotated[str, typer.Option(help="Folder that every machine reaches, for answers as Parquet files.")],
    limit: Limit = 10,
    filter: Filter = None,
    exact: Exact = False,
    ef: Width = None,
    nprobe: Width = None,
    ray: Ray = None,
    cpus: Cores = None,
    work: Work = None,
    json: Json = False,
) -> None:
    """Find the nearest records of many queries, over shards opened where they lie; begun again it goes on."""
    from vecdb.ray.searching import search as run
    from vecdb.ray.session import RayOptions

    shown = Output(json)
    more: dict[str, Any] = {} if filter is None else {"filter": filter}
    params = SearchParams(exact=exact, ef=ef, nprobe=nprobe)
    with shown.progress("searching", "queries") as report:
        result = run(
            cluster, collection, queries, limit, params=params, out=out,
            on=RayOptions(ray, cpus, None, work, report), **more,
        )  # fmt: skip
    shown.emit(result, lambda console: console.print(facts(result)))


def evaluate(
    cluster: Cluster,
    queries: Queries,
    collection: CollectionName,
    limit: Limit = 10,
    filter: Filter = None,
    ef: Width = None,
    nprobe: Width = None,
    ray: Ray = None,
    cpus: Cores = None,
    work: Work = None,
    json: Json = False,
) -> None:
    """Compare a whole cluster's answers with those of exact search over all its shards."""
    from vecdb.ray.searching import evaluate as run
    from vecdb.ray.session import RayOptions

    out = Output(json)
    more: dict[str, Any] = {} if filter is None else {"filter": filter}
    params = SearchParams(ef=ef, nprobe=nprobe)
    with out.progress("searching", "queries") as report:
        result = run(
            cluster, collection, queries, limit, params=params, on=RayOptions(ray, cpus, None, work, report), **more,
        )  # fmt: skip
    out.emit(result, lambda console: console.print(facts(result)))


def reshape(
    cluster: Cluster,
    shards: Annotated[int | None, typer.Option(min=1, help="How many it is to have.")] = None,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up one that was begun and has not switched.")
    ] = False,
    drain_s: Annotated[float, typer.Option(min=0.0, help="For the old writers to stop.")] = 30.0,
    servers_s: Annotated[
        float, typer.Option(min=0.0, help="To wait for servers of the new shards; 0: do not.")
    ] = 120.0,
    remove_old: Annotated[
        bool, typer.Option("--remove-old", help="Remove the logs of the old shards at the end.")
    ] = False,
    ray: Ray = None,
    cpus: Cores = None,
    cpus_each: Each = 1,
    work: Work = None,
    token: Token = None,
    tls: Tls = None,
    json: Json = False,
) -> None:
    """Give a cluster another number of shards while it is read and written; begun again it goes on."""
    from vecdb.ray.reshaping import reshape as run
    from vecdb.ray.session import RayOptions
    from vecdb.shards.reshaping.steps import abandon as give_up

    out = Output(json)
    if abandon == (shards is not None):
        raise InvalidArgument("say --shards N, or --abandon")
    if shards is None:
        give_up(cluster)
        out.emit({"cluster": cluster, "abandoned": True}, lambda console: console.print("the old shards stay"))
        return
    said: list[str] = []

    def report(step: str, done: int, total: int) -> None:
        if said[-1:] != [step]:
            said.append(step)
            out.note(step)

    result = run(
        cluster, shards=shards, on=RayOptions(ray, cpus, cpus_each, work), drain_s=drain_s, servers_s=servers_s,
        token=token, tls=tls, remove_old=remove_old, report=report,
    )  # fmt: skip
    out.emit(result, lambda console: console.print(facts(result)))


def _index(kind: str | None) -> IndexConfig | None:
    if kind is None:
        return None
    if kind not in _KINDS:
        raise InvalidArgument(f"--index must be one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind]()
