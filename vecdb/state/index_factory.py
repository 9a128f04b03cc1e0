"""The index kinds that exist: how each is made and opened, and what the rest of vecdb must know about it.

    configuration in the state -> kind -> new_index             an empty index over the rows
                                       -> open_sealed_index     the index that a sealed file holds
                                       -> facts                 memory, width parameter, how it is searched

Another kind needs an entry in `_KINDS`, a package of its own in index/, its configuration in schema.py, and what
callers may say of it (validate/arguments.py, wire/messages.py, the CLI's options). All other code uses a fact of
`IndexKind`, or an attribute of `Index`, and not the name of a kind; but who has no index at hand asks for a kind by
name (cluster/cluster_collection.py, shards/sizing.py, integrations/console/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vecdb.index.contract import Index
from vecdb.index.curator import tree_order
from vecdb.index.curator.curator_index import CuratorIndex
from vecdb.index.flat import FlatIndex
from vecdb.index.hnsw import graph
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import Curator, Flat, Hnsw, IndexConfig, Spann
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import catalog

NewIndex = Callable[[Any, str, Rows, Path], Index]  # configuration, metric, rows, folder of the collection
OpenSealed = Callable[..., Index]  # path, configuration, metric, rows, mapped=...


@dataclass(frozen=True, slots=True)
class IndexKind:
    """What is true of every index of one kind.

    strategy : what a plan calls a search through it.
    new : makes an empty index.   open_sealed : opens a sealed file; None where nothing is sealed.
    bytes_per_row : memory that a row takes, given the configuration and the dimension.
    follows_memory_budget : the index keeps in memory what `memory_budget_bytes` of its configuration allows.
    has_file_backed_rows : checksums and ids of the rows are in files, as the index is: they must not fill memory.
    width_parameter : of a configuration and of SearchParams, how wide a search is; None where a search has no width.
    scan_limit_parameter : of a configuration, up to how many rows of a tenant are scanned; None where there is none.
    """

    strategy: Literal["exact", "graph", "lists", "tree"]
    new: NewIndex
    open_sealed: OpenSealed | None = None
    bytes_per_row: Callable[[Any, int], int] = lambda config, dim: 0
    follows_memory_budget: bool = False
    has_file_backed_rows: bool = False
    width_parameter: Literal["ef", "nprobe"] | None = None
    scan_limit_parameter: str | None = None

    def width_of(self, config: IndexConfig) -> int | None:
        """The width that a configuration names; None where it names none."""
        return getattr(config, self.width_parameter) if self.width_parameter is not None else None

    def scan_limit_of(self, config: IndexConfig) -> int | None:
        """Up to how many rows of a tenant are scanned by what a configuration says; None where it says nothing."""
        return getattr(config, self.scan_limit_parameter) if self.scan_limit_parameter is not None else None


_KINDS: dict[str, IndexKind] = {
    Flat.kind: IndexKind("exact", lambda config, metric, rows, folder: FlatIndex(metric, rows)),
    Hnsw.kind: IndexKind(
        "graph",
        lambda config, metric, rows, folder: HnswIndex(config, metric, rows),
        HnswIndex.open,
        bytes_per_row=lambda config, dim: graph.bytes_per_row(dim, config.m),
        width_parameter="ef",
    ),
    Spann.kind: IndexKind(
        "lists",
        SpannIndex,
        SpannIndex.open,
        follows_memory_budget=True,
        has_file_backed_rows=True,
        width_parameter="nprobe",
    ),
    Curator.kind: IndexKind(
        "tree",
        lambda config, metric, rows, folder: CuratorIndex(config, metric, rows),
        CuratorIndex.open,
        bytes_per_row=lambda config, dim: tree_order.bytes_per_row(dim),
        width_parameter="nprobe",
        scan_limit_parameter="scan_max",
    ),
}


def kind_of(config: IndexConfig) -> IndexKind:
    return _KINDS[config.kind]


def config_in(stored: dict[str, Any] | None) -> IndexConfig:
    """The configuration that a state holds. Where the user named none it is a graph, which is not begun while the
    collection is small.
    """
    return catalog.index_from_dict(stored) or Hnsw()


def new_index(config: IndexConfig, metric: str, rows: Rows, folder: Path, memory_budget_bytes: int | None) -> Index:
    """An empty index over `rows`. memory_budget_bytes : of the database, None where it has none."""
    return kind_of(config).new(_budgeted(config, memory_budget_bytes), metric, rows, folder)


def open_sealed_index(
    path: Path, config: IndexConfig, metric: str, rows: Rows, memory_budget_bytes: int | None, *, mapped: bool
) -> Index:
    """The index in the sealed file `path`. mapped : for a process that never changes it. Raises Corruption, or
    FileNotFoundError.
    """
    open_sealed = kind_of(config).open_sealed
    assert open_sealed is not None, config
    return open_sealed(path, _budgeted(config, memory_budget_bytes), metric, rows, mapped=mapped)


def _budgeted(config: Any, memory_budget_bytes: int | None) -> Any:
    """The database's budget where the collection has none of its own: what does not fit stays on disk."""
    if not kind_of(config).follows_memory_budget or config.memory_budget_bytes is not None:
        return config
    return replace(config, memory_budget_bytes=memory_budget_bytes)
