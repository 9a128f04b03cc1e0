"""A collection of zvec with HNSW, for each engine and peer that measures one.

spec : metric, m, ef_construction, threads (those that build; searches use one).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zvec

_STEP = 1_000  # records of an insert


def start(threads: int) -> None:
    """Say how many threads there are, which zvec takes once a process: later calls change nothing."""
    with contextlib.suppress(RuntimeError):
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=threads)


def build(
    path: Path, base: Any, spec: dict[str, Any], fields: Sequence[str] = (), records: Callable[..., Any] | None = None
) -> None:
    """fields : of keywords, each with an inverted index.   records(start, stop) : fields of some rows, as dicts."""
    shutil.rmtree(path, ignore_errors=True)
    metric = {"l2": zvec.MetricType.L2, "ip": zvec.MetricType.IP, "cosine": zvec.MetricType.COSINE}
    index = zvec.HnswIndexParam(
        metric_type=metric[spec["metric"]], m=spec["m"], ef_construction=spec["ef_construction"]
    )
    schema = zvec.CollectionSchema(
        name="bench",
        fields=[zvec.FieldSchema(name, zvec.DataType.STRING, index_param=zvec.InvertIndexParam()) for name in fields],
        vectors=[zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, base.shape[1], index_param=index)],
    )
    docs = zvec.create_and_open(path=str(path), schema=schema)
    for first in range(0, len(base), _STEP):
        rows = np.asarray(base[first : first + _STEP], np.float32)
        values = records(first, first + len(rows)) if records else [{}] * len(rows)
        docs.insert([zvec.Doc(id=str(first + i), vectors={"v": row}, fields=values[i]) for i, row in enumerate(rows)])
    docs.optimize(zvec.OptimizeOption(concurrency=spec["threads"]))
    docs.flush()
    docs.close()


def open_to_read(path: Path) -> Any:
    """The collection on its fast read-only path."""
    return zvec.open(str(path), zvec.CollectionOption(read_only=True, enable_mmap=True))


def width(ef: int) -> Any:
    return zvec.HnswQueryParam(ef=ef)


def search(docs: Any, query: Any, limit: int, width: Any, condition: str | None = None) -> Any:
    """zvec's own numbers of the nearest, which `rows` translates."""
    nearest = zvec.Query("v", vector=np.asarray(query, np.float32), param=width)
    return docs.query_internal_ids(nearest, topk=limit, filter=condition)


def rows(docs: Any, found: Any) -> list[int]:
    return [int(key) for key in docs.resolve_internal_ids(found) if key is not None]
