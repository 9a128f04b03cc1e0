"""Many queries over all shards of a cluster: an actor a shard, which opens it where it lies; answers put together in
tasks, and kept or written as they come.

    chunk of queries --> every ShardSearcher --> answers of all shards --> the nearest of them --> Hits, or a file

No server takes part. An actor that dies is started again, opens its shard again, and is asked again. A job that writes
goes on where it was: files that are there are not made again.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.api.hits import Hits
from vecdb.cluster.merging import merge_hits
from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.index.contract import Neighbors
from vecdb.query.recall import recall_of
from vecdb.ray.session import RayOptions, check_room, job_folder, session
from vecdb.schema import SearchParams
from vecdb.shards.files import Files, as_files
from vecdb.shards.opened import opened_shard
from vecdb.storage.disk import filesystem

_HERE = RayOptions()
CHUNK = 4_096  # queries that are asked at once
_UNDER_WAY = 3  # chunks: an actor has the next ones while it answers one
_JOB = "job.json"
_JOB_BYTES_MAX = 1 << 16


class ShardSearcher:
    """One shard of a cluster, open in a process of Ray's."""

    def __init__(self, url: str, shard: int, name: str, work: str | None) -> None:
        self._open = ExitStack()
        if work is not None:
            filesystem.make_dir(Path(work))
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="vecdb-search-", dir=work))
        db = self._open.enter_context(opened_shard(url, shard, Path(folder)))
        self._docs = db.collection(name)

    def search(self, queries: NDArray[Any], limit: int, params: SearchParams, more: dict[str, Any]) -> Hits:
        return self._docs.search(queries, limit, params=params, **more)

    def close(self) -> None:
        self._open.close()


class _Searchers:
    """The actors of a search. Used with `with`."""

    def __init__(self, ray: Any, url: str, name: str, on: RayOptions, work: str | None) -> None:
        self._ray = ray
        bucket = cluster_bucket(url)
        shards = Placement.read(bucket).serving
        check_room(ray, len(shards), on.cpus_each or 0)
        made = ray.remote(ShardSearcher).options(
            num_cpus=on.cpus_each or 0, max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
        )
        self._actors = [made.remote(url, shard, name, work) for shard in shards]
        self._merge = ray.remote(_merged).options(num_cpus=0)
        self._write = ray.remote(_write).options(num_cpus=0)

    def __enter__(self) -> _Searchers:
        return self

    def __exit__(self, *_: object) -> None:
        closing = [actor.close.remote() for actor in self._actors]
        self._ray.wait(closing, num_returns=len(closing), timeout=10.0)
        for actor in self._actors:
            self._ray.kill(actor)

    def ask(self, queries: Any, limit: int, params: SearchParams, more: dict[str, Any]) -> Any:
        """A reference to the answer of one chunk. queries : an array, or a reference to one."""
        given = self._ray.put(queries) if isinstance(queries, np.ndarray) else queries
        return self._merge.remote(limit, *[actor.search.remote(given, limit, params, more) for actor in self._actors])

    def write(self, hits: Any, file: Path, first: int) -> Any:
        return self._write.remote(hits, str(file), first)

    def got(self, reference: Any) -> Any:
        """What a task returned. Raises vecdb's own error where it raised one."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise cause_of(error) from None
        except self._ray.exceptions.RayActorError as error:
            raise VecdbError(f"a shard could not be opened: {str(error).strip().splitlines()[-1]}") from None


def cause_of(error: Any) -> Exception:
    """The error that a task raised, where it is one of vecdb's; otherwise Ray's own."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def search(
    url: str,
    name: str,
    queries: Any,
    limit: int = 10,
    *,
    params: SearchParams | None = None,
    out: str | None = None,
    chunk: int = CHUNK,
    on: RayOptions = _HERE,
    **more: Any,
) -> Any:
    """The nearest records of each of many queries.

    Parameters
    ----------
    url, name : the cluster, and the collection.
    queries : [nq, dim]; or paths of files of them; or a Ray Dataset with a column "vector".
    limit, params, more : as `Collection.search` takes them (`filter`, `filter_params`, `tenant`, `fields`).
    out : a folder that every machine reaches, for answers as Parquet files of `chunk` queries each: query (its number),
        ids, distances. One that was begun by the same job is completed.
    chunk : queries asked at once.
    on : which Ray, and folders; its progress counts queries that are answered.

    Returns `Hits` of all queries; with `out` {"queries": int, "files": int, "seconds": float}.
    """
    began = time.monotonic()
    params = params or SearchParams()
    if not 1 <= chunk <= 1 << 20:
        raise InvalidArgument(f"chunk must be from 1 to 1,048,576 queries, got {chunk}")
    job = f"{url} {name} {limit} {params} {sorted(more.items(), key=lambda one: one[0])} {chunk}"
    folder = None if out is None else _begun(Path(out), job)
    with session(on) as ray, job_folder(on) as work:
        total, chunks = _chunks(ray, queries, chunk)
        answers: list[Hits] = []
        files = 0
        with _Searchers(ray, url, name, on, work) as asked:
            for found in _in_turn(asked, chunks, total, limit, params, more, folder, on):
                if folder is None:
                    answers.append(found)
                files += 1
    if folder is not None:
        return {"queries": total, "files": files, "seconds": time.monotonic() - began}
    return joined(answers, limit)


def evaluate(
    url: str,
    name: str,
    queries: Any,
    limit: int = 10,
    *,
    params: SearchParams | None = None,
    on: RayOptions = _HERE,
    **more: Any,
) -> dict[str, Any]:
    """Recall of a whole cluster's answers against exact search over all its shards. Arguments as in `search`.

    Returns {"queries", "limit", "recall", "recall_p1", "seconds", "seconds_exact"}; recall None where there is nothing
    to find.
    """
    params = params or SearchParams()
    began = time.monotonic()
    with session(on):
        found = search(url, name, queries, limit, params=params, on=on, **more)
        middle = time.monotonic()
        exact = SearchParams(exact=True, threads=params.threads)
        truth = search(url, name, queries, limit, params=exact, on=on, **more)
    recalls = recall_of(_neighbors(found), _neighbors(truth), limit)
    some = bool(truth.counts.any())
    return {
        "queries": len(recalls),
        "limit": limit,
        "recall": float(recalls.mean()) if some else None,
        "recall_p1": float(np.percentile(recalls, 1)) if some else None,
        "seconds": middle - began,
        "seconds_exact": time.monotonic() - middle,
    }


def _neighbors(hits: Hits) -> Neighbors:
    return Neighbors(hits.ids, hits.distances, hits.counts, np.empty(0, np.int64))


# -- chunks ------------------------------------------------------------------------------------------


def _in_turn(
    asked: _Searchers,
    chunks: Iterator[tuple[int, int, Any]],
    total: int,
    limit: int,
    params: SearchParams,
    more: dict[str, Any],
    folder: Path | None,
    on: RayOptions,
) -> Iterator[Any]:
    """The answer of each chunk, in order; a few are under way at a time."""
    waiting: list[tuple[int, Any]] = []
    done = 0
    on.report(0, total)
    while True:
        while len(waiting) < _UNDER_WAY and (one := next(chunks, None)) is not None:
            first, n, queries = one
            waiting.append((n, _begin(asked, first, queries, limit, params, more, folder)))
        if not waiting:
            return
        n, reference = waiting.pop(0)
        answer = None if reference is None else asked.got(reference)
        done += n
        on.report(done, total)
        yield answer


def _begin(
    asked: _Searchers,
    first: int,
    queries: Any,
    limit: int,
    params: SearchParams,
    more: dict[str, Any],
    folder: Path | None,
) -> Any:
    if folder is None:
        return asked.ask(queries, limit, params, more)
    file = folder / f"part-{first:012d}.parquet"
    if filesystem.exists(file):
        return None
    return asked.write(asked.ask(queries, limit, params, more), file, first)


def _chunks(ray: Any, queries: Any, chunk: int) -> tuple[int, Iterator[tuple[int, int, Any]]]:
    """How many queries there are; and (first, how many, an array or a reference to it) of each chunk."""
    if isinstance(queries, np.ndarray) or (isinstance(queries, list) and queries and not isinstance(queries[0], str)):
        array = np.asarray(queries)
        if array.ndim != 2:
            raise InvalidArgument(f"queries must be [nq, dim], got shape {array.shape}")
        return len(array), (
            (at, len(array[at : at + chunk]), array[at : at + chunk]) for at in range(0, len(array), chunk)
        )
    if hasattr(queries, "to_numpy_refs"):
        blocks = queries.to_numpy_refs()
        lengths = ray.get([ray.remote(_rows_of).remote(block) for block in blocks])
        firsts = np.cumsum([0, *lengths]).tolist()
        vectors = ray.remote(_vectors_of)
        return firsts[-1], ((f, n, vectors.remote(block)) for f, n, block in zip(firsts, lengths, blocks, strict=False))
    files = as_files(queries, None, None)
    parts = files.parts(chunk)
    read = ray.remote(_read)
    return parts[-1][1] if parts else 0, ((a, b - a, read.remote(files, a, b)) for a, b in parts)


def _merged(limit: int, *parts: Hits) -> Hits:
    """The nearest of each query among what all shards found."""
    first = parts[0]
    found = dict(enumerate(parts))
    return merge_hits(found, limit, first._metric, first._select, queries=len(first.counts), single=False)


def _read(files: Files, start: int, stop: int) -> NDArray[Any]:
    with files.open() as source:
        return np.array(source[start:stop])


def _rows_of(block: Any) -> int:
    if "vector" not in block:
        raise InvalidArgument(f"queries as a Dataset need a column 'vector', there are {', '.join(block)}")
    return len(block["vector"])


def _vectors_of(block: Any) -> NDArray[Any]:
    column = np.asarray(block["vector"])
    return np.stack(list(column)) if column.dtype == object else column


# -- answers -----------------------------------------------------------------------------------------


def joined(answers: list[Hits], limit: int) -> Hits:
    """The answers of chunks as those of all queries."""
    if not answers:
        return Hits(
            np.empty((0, limit), np.int64), np.empty((0, limit), np.float32), np.empty(0, np.int64), 0, "l2", False
        )
    first = answers[0]
    fields = None if first.packed is None else [one for hits in answers for one in hits.packed or ()]
    owners = None
    if any(one.owners is not None for one in answers):
        owners = np.concatenate([_owners(one) for one in answers])
    return Hits(
        np.concatenate([one.ids for one in answers]),
        np.concatenate([one.distances for one in answers]),
        np.concatenate([one.counts for one in answers]),
        first.sequence,
        first._metric,
        False,
        fields,
        owners=owners,
    )


def _owners(hits: Hits) -> NDArray[Any]:
    return np.full(hits.ids.shape, "", object) if hits.owners is None else hits.owners


def _begun(folder: Path, job: str) -> Path:
    """The folder of a job's answers, noted as its own. Raises InvalidArgument where it is another's."""
    noted = msgspec.json.encode({"job": hashlib.sha256(job.encode()).hexdigest()})
    filesystem.make_dir(folder)
    file = folder / _JOB
    if filesystem.exists(file):
        if filesystem.read_bytes(file, _JOB_BYTES_MAX) != noted:
            raise InvalidArgument(f"{folder} has answers of another search: name another folder, or empty it")
    elif filesystem.list_dir(folder):
        raise InvalidArgument(f"{folder} is not empty: name a folder for the answers alone")
    else:
        filesystem.write_atomic(file, [noted])
    return folder


def _write(hits: Hits, file: str, first: int) -> int:
    """A Parquet file of a chunk's answers, there whole or not at all."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise NotFound("Parquet needs pyarrow: pip install 'vecdb-engine[ray]'") from None
    real = np.arange(hits.ids.shape[1]) < hits.counts[:, None]
    ends = pa.array(np.concatenate([[0], np.cumsum(hits.counts)]).astype(np.int32))
    columns = {
        "query": pa.array(np.arange(first, first + len(hits.ids))),
        "ids": pa.ListArray.from_arrays(ends, pa.array(hits.ids[real].tolist())),
        "distances": pa.ListArray.from_arrays(ends, pa.array(hits.distances[real])),
    }
    path = Path(file)
    temporary = path.with_name(f".{path.name}.part")
    parquet.write_table(pa.table(columns), temporary)
    filesystem.rename(temporary, path)
    return len(hits.ids)
