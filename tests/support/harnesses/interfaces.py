"""The interfaces of public harnesses as plug-ins see them, and drivers that call plug-ins as those harnesses do: the
same methods in the same order. Nothing of theirs is copied.
"""

from __future__ import annotations

import enum
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vecdb_bench

PLUGINS = Path(vecdb_bench.__file__).parent


class BaseANN:
    """What ann-benchmarks and VIBE give an algorithm."""

    def get_memory_usage(self) -> float:
        return 1.0

    def get_additional(self) -> dict[str, Any]:
        return {}

    def done(self) -> None:
        raise AssertionError("the plug-in closes what it opened")


class BigAnnBase:
    """What big-ann-benchmarks gives an algorithm."""

    def get_results(self) -> Any:
        return self.res  # type: ignore[attr-defined]

    def get_additional(self) -> dict[str, Any]:
        return {}


def install(monkeypatch: pytest.MonkeyPatch, modules: dict[str, dict[str, Any]]) -> None:
    """Make modules with these contents importable for one test, and the packages that they are in."""
    for name, contents in modules.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if package not in sys.modules or end == len(parts):
                made = ModuleType(package)
                made.__path__ = []  # type: ignore[attr-defined]
                monkeypatch.setitem(sys.modules, package, made)
                if end > 1:
                    setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], made)
        vars(sys.modules[name]).update(contents)


def plugin(path: str) -> ModuleType:
    """A plug-in's module, loaded from its file under the name that its configuration gives it."""
    file = PLUGINS / path
    spec = importlib.util.spec_from_file_location(f"plugin_{file.parent.parent.name}_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configured(path: str) -> list[dict[str, str]]:
    """The plain entries of each algorithm that a configuration names."""
    text = (PLUGINS / path).read_text()
    blocks = re.split(r"(?m)^  - |^    vecdb:$", text)[1:]
    found = [dict(re.findall(r"(?m)^\s*([a-z_-]+): ([^\n\[{|]+)$", block)) for block in blocks]
    assert found
    return found


def run_ann(algorithm: Any, base: np.ndarray, queries: np.ndarray, k: int, arguments: list[list[Any]]) -> list[Any]:
    """One definition: memory, fit, memory; for each group of query arguments every query, then all at once."""
    results = []
    try:
        before = algorithm.get_memory_usage()
        algorithm.fit(base)
        assert algorithm.get_memory_usage() >= before
        for group in arguments or [[]]:
            if group:
                algorithm.set_query_arguments(*group)
            single = []
            for query in queries:
                found = algorithm.query(query, k)
                assert len(found) == len(set(found)) <= k
                single.append([int(number) for number in found])
            algorithm.batch_query(queries, k)
            assert [[int(number) for number in line] for line in algorithm.get_batch_results()] == single
            results.append((str(algorithm), single))
        assert isinstance(algorithm.get_additional(), dict)
    finally:
        algorithm.done()
    return results


def run_stream(algorithm: Any, data: Any, steps: list[tuple[Any, ...]], k: int) -> list[Any]:
    """A runbook: (insert, start, end), (delete, start, end), (replace, first tag, last tag, first row), (search,)."""
    algorithm.setup(data.dtype, data.nb, data.d)
    algorithm.set_query_arguments({"ef": 200})
    results = []
    try:
        for operation, *numbers in steps:
            if operation == "insert":
                start, end = numbers
                algorithm.insert(data.rows[start:end], np.arange(start, end, dtype=np.uint32))
            elif operation == "delete":
                algorithm.delete(np.arange(*numbers, dtype=np.uint32))
            elif operation == "replace":
                first, last, row = numbers
                algorithm.replace(data.rows[row : row + last - first], np.arange(first, last, dtype=np.uint32))
            else:
                algorithm.query(data.queries, k)
                results.append(algorithm.get_results())
    finally:
        algorithm.done()
    return results


def vectordbbench() -> dict[str, dict[str, Any]]:
    """Modules of VectorDBBench, as far as the plug-in uses them."""
    from pydantic import BaseModel

    class DB(enum.Enum):
        Milvus = "Milvus"

        @property
        def init_cls(self) -> Any:
            return "client of Milvus"

        @property
        def config_cls(self) -> Any:
            return "config of Milvus"

        def case_config_cls(self, index_type: Any = None) -> Any:
            return f"case of Milvus {index_type}"

    DB.__module__, DB.__qualname__ = "vectordb_bench.backend.clients", "DB"
    filters = enum.StrEnum("FilterOp", [("NumGE", "NumGE"), ("StrEqual", "Label"), ("NonFilter", "NonFilter")])
    payloads = enum.StrEnum(
        "PayloadProfile", [(name.upper(), name) for name in ("ids_only", "vector", "scalar_label", "text")]
    )
    metrics = enum.StrEnum("MetricType", [(name, name) for name in ("L2", "COSINE", "IP", "DP")])

    class DatasetWithSizeType(enum.Enum):
        CohereSmall = "Small Cohere (768dim, 100K)"

    class PerformanceCustomDataset:
        def __init__(
            self, name: str, description: str, load_timeout: float, optimize_timeout: float, dataset_config: Any
        ) -> None:
            self.dataset = ("opened", *sorted(dataset_config.items()))

    DatasetWithSizeType.__module__ = "vectordb_bench.backend.dataset"
    DatasetWithSizeType.__qualname__ = "DatasetWithSizeType"
    api = {
        "VectorDB": type("VectorDB", (), {}),
        "DBConfig": type("DBConfig", (BaseModel,), {"__annotations__": {"db_label": str}, "db_label": ""}),
        "DBCaseConfig": type("DBCaseConfig", (), {}),
        "MetricType": metrics,
    }
    return {
        "vectordb_bench.backend.clients": {"DB": DB},
        "vectordb_bench.backend.clients.api": api,
        "vectordb_bench.backend.cases": {"PerformanceCustomDataset": PerformanceCustomDataset},
        "vectordb_bench.backend.dataset": {
            "DatasetWithSizeType": DatasetWithSizeType,
            "DatasetWithSizeMap": {},
        },
        "vectordb_bench.backend.filter": {"Filter": SimpleNamespace, "FilterOp": filters},
        "vectordb_bench.backend.payload": {"PayloadProfile": payloads},
    }
