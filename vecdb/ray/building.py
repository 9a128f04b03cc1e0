"""A cluster built from files or a Ray Dataset: shards side by side, each born as a snapshot in its log.

    part of the input --split by slot--> a piece for each shard --> a task for each shard: directory, index, snapshot
                                                                    --> the placement, once all are there

A worker that is killed is replaced by Ray, and its task begins anew; pieces that were lost with a machine are cut
again.
Until the placement is written there is no cluster, and what was killed leaves nothing that anybody reads.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import validate
from vecdb.cluster.placement import Placement, bucket_url, cluster_bucket
from vecdb.errors import AlreadyExists, InvalidArgument
from vecdb.ray.session import RayOptions, job_folder, session
from vecdb.replication.objects import Bucket
from vecdb.schema import CollectionConfig, IndexConfig
from vecdb.shards.birth import ShardBuilder, new_log, remove_unused
from vecdb.shards.files import Files, as_files
from vecdb.shards.rows import RecordRows, rows_of_block
from vecdb.storage.disk import filesystem

_HERE = RayOptions()
_RETRIES = 8  # of a task whose worker dies


@dataclass(frozen=True, slots=True)
class _BuildSpec:
    """url : of the cluster.   table : int64[4096].   work : a folder on each machine; None: a temporary one."""

    url: str
    config: CollectionConfig
    shards: int
    table: NDArray[np.int64]
    work: str | None
    threads: int


def build(
    url: str,
    name: str,
    source: Any,
    *,
    shards: int,
    metric: str | None = None,
    index: IndexConfig | None = None,
    dtype: str | None = None,
    id: str | None = None,
    vector: str | None = None,
    on: RayOptions = _HERE,
) -> dict[str, Any]:
    """Make a cluster of one collection.

    Parameters
    ----------
    url : cluster://... where there is none yet.
    name : of the collection.
    source : paths of files (Parquet, npy and all that `vecdb import` reads) that every machine reaches, patterns among
        them, or a Ray Dataset with a column of vectors. Where an id repeats, the last row counts.
    shards : how many.
    metric, index, dtype : of the collection, as `create_collection` takes them; None: as the file says, else cosine, by
        size, and the dtype of its numbers.
    id, vector : names of columns; None: as `vecdb import` finds them, of a Dataset "id" and "vector". Without ids a
        row's number is its id.
    on : which Ray, cores for the index of each shard, folders; its progress counts parts and shards.

    Returns {"records": int, "shards": [records of each], "seconds": float}. Raises AlreadyExists where there is a
    cluster, InvalidArgument for rows that cannot be stored.
    """
    began = time.monotonic()
    bucket = cluster_bucket(url, conditional=True)
    placement = Placement.even(shards)
    if bucket.get("placement.json") is not None:
        raise AlreadyExists(f"{url} is a cluster already: write into it, or build at another address")
    with session(on) as ray, job_folder(on) as work:
        dataset = hasattr(source, "to_numpy_refs")
        files = None if dataset else as_files(source, id, vector)
        config = _config_of_dataset(source, name, metric, index, dtype, vector or "vector") if files is None else (
            files.config(name, metric, index, dtype)
        )  # fmt: skip
        spec = _BuildSpec(url, config, shards, placement.table, work, on.cpus_each or 1)
        pieces = _cut_dataset(ray, source, spec, id or "id", vector or "vector") if files is None else (
            _cut_files(ray, files, spec)
        )  # fmt: skip
        born = _bear_all(ray, spec, pieces, on)
    made = {number: replace(placement.shards[number], log=log) for number, (log, _) in enumerate(born)}
    replace(placement, shards=made).create(bucket)
    remove_unused(bucket, {log for log, _ in born})
    counts = [count for _, count in born]
    return {"records": sum(counts), "shards": counts, "seconds": time.monotonic() - began}


# -- pieces ------------------------------------------------------------------------------------------


def _cut_files(ray: Any, files: Files, spec: _BuildSpec) -> list[list[Any]]:
    """Of each part, references to the pieces of all shards."""
    cut = ray.remote(_split_part).options(num_returns=spec.shards, max_retries=_RETRIES)
    return [_listed(cut.remote(files, start, stop, spec), spec.shards) for start, stop in files.parts()]


def _cut_dataset(ray: Any, dataset: Any, spec: _BuildSpec, id: str, vector: str) -> list[list[Any]]:
    cut = ray.remote(_split_block).options(num_returns=spec.shards, max_retries=_RETRIES)
    blocks = dataset.to_numpy_refs()
    first, pieces = 0, []
    lengths = ray.get([ray.remote(_length_of).remote(block, vector) for block in blocks])
    for block, length in zip(blocks, lengths, strict=True):
        pieces.append(_listed(cut.remote(block, id, vector, first, spec), spec.shards))
        first += length
    return pieces


def _listed(found: Any, shards: int) -> list[Any]:
    return list(found) if shards > 1 else [found]


def _split_part(files: Files, start: int, stop: int, spec: _BuildSpec) -> Any:
    return _given(files.read(start, stop).split(spec.table, spec.shards))


def _split_block(block: Any, id: str, vector: str, first: int, spec: _BuildSpec) -> Any:
    return _given(rows_of_block(block, id, vector, first).split(spec.table, spec.shards))


def _given(pieces: list[RecordRows]) -> Any:
    """As Ray wants what a task returns: one value, or so many."""
    return pieces if len(pieces) > 1 else pieces[0]


def _length_of(block: Any, vector: str) -> int:
    if vector not in block:
        raise InvalidArgument(f"the Dataset has no column {vector!r}: {', '.join(block)}; name it with vector=")
    return len(block[vector])


def _config_of_dataset(
    dataset: Any, name: str, metric: str | None, index: IndexConfig | None, dtype: str | None, vector: str
) -> CollectionConfig:
    first = dataset.take_batch(1, batch_format="numpy")
    rows = rows_of_block(first, "", vector, 0)
    found = "float32" if rows.vectors.dtype == np.float64 else str(rows.vectors.dtype)
    return validate.collection_config(name, rows.vectors.shape[1], metric or "cosine", index, dtype or found)


# -- shards ------------------------------------------------------------------------------------------


def _bear_all(ray: Any, spec: _BuildSpec, pieces: list[list[Any]], on: RayOptions) -> list[tuple[str, int]]:
    """(log, records) of each shard. Raises what a task did."""
    bear = ray.remote(_bear).options(num_cpus=spec.threads, max_retries=_RETRIES)
    tasks = [bear.remote(spec, shard, [piece[shard] for piece in pieces]) for shard in range(spec.shards)]
    waiting = [piece[0] for piece in pieces] + tasks
    total = len(waiting)
    on.report(0, total)
    while waiting:
        _, waiting = ray.wait(waiting, timeout=5.0, fetch_local=False)
        on.report(total - len(waiting), total)
    try:
        born: list[tuple[str, int]] = ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() if not isinstance(error.cause, Exception) else error.cause from None
    return born


def _bear(spec: _BuildSpec, shard: int, pieces: list[Any]) -> tuple[str, int]:
    """One shard: (its log, how many records it has). pieces : references, fetched one after the other."""
    import ray

    bucket: Bucket = cluster_bucket(spec.url, conditional=True)
    log = new_log(bucket, shard)
    if spec.work is not None:
        filesystem.make_dir(Path(spec.work))
    with tempfile.TemporaryDirectory(prefix="vecdb-build-", dir=spec.work) as folder:
        with ShardBuilder(Path(folder) / "shard", log=f"{bucket_url(spec.url)}/{log}") as builder:
            docs = builder.create(spec.config)
            for piece in pieces:
                rows: RecordRows = ray.get(piece)
                if len(rows):
                    rows.upsert_into(docs)
            return log, builder.bear(spec.threads)
