"""What would change without the interpreter's lock: every place that reads an attribute, changes it and writes it back
outside a lock is listed here, with the reason why no two threads meet there, or why it does no harm. A new one fails.

The rest relies on single operations of lists and dicts (`pop`, `append`, `get`, an assignment), which CPython keeps
whole without its lock, too. Turns of kernels (vecdb/kernels/threads) are empty where the interpreter has no lock.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import vecdb

PACKAGE = Path(vecdb.__file__).parent
ELSEWHERE = {"v1", "cli", "integrations"}  # generated, or of one thread
LOCKED = re.compile(r"lock|gate|guard|opening|completing|self\._changed")  # what a `with` names that lets one thread in

OWN = "an object of one call, or of one thread"
COMMIT = "the commit thread alone"
MAINTENANCE = "the maintenance thread alone, under the lock of jobs"
CALLER = "callers hold the lock of the object"
ROUGH = "a rough count: one that is lost does no harm"

LISTED = {
    ("client/streams/bulk_ingest.py", "IngestStream"): OWN,
    ("client/streams/interruptions.py", "_Handlers"): "the main thread alone",
    ("client/streams/query_stream.py", "QueryStream"): OWN,
    ("client/streams/rebatch.py", "Pager"): OWN,
    ("client/streams/rebatch.py", "Parts"): OWN,
    ("client/retry.py", "RetryPolicy"): OWN,
    ("client/retry.py", "Patience"): OWN,
    ("cluster/asking/legs.py", "ReadLeg"): OWN,
    ("cluster/asking/legs.py", "WriteLeg"): OWN,
    ("columns/column_file.py", "_Arrays"): OWN,
    ("columns/dictionary.py", "_Codes"): "one thread extends columns at a time",
    ("columns/evaluation.py", "Evaluation"): OWN,
    ("commit/committer.py", "CommitTimes"): COMMIT,
    ("commit/committer.py", "Committer"): COMMIT,
    ("filters/dicts.py", "_Reader"): OWN,
    ("filters/parser.py", "_Parser"): OWN,
    ("index/hnsw/filtered.py", "search"): OWN,
    ("index/hnsw/hnsw_index.py", "HnswIndex"): MAINTENANCE,
    ("index/spann/entry_spool.py", "EntrySpool"): MAINTENANCE,
    ("index/spann/spann_index.py", "SpannIndex"): OWN,
    ("maintenance/vacuum.py", "VacuumCopy"): MAINTENANCE,
    ("query/learning/asked_queries.py", "AskedQueries"): ROUGH,
    ("query/searcher.py", "Searcher"): ROUGH,
    ("replication/backups/remote_backup.py", "RemoteBackup"): "before its threads begin",
    ("replication/log/recording.py", "RecordingTransaction"): COMMIT,
    ("shards/reshaping/new_shard.py", "NewShard"): "a worker, which is asked one thing at a time",
    ("state/fields_cache.py", "FieldsCache"): ROUGH,
    ("state/filter_cache.py", "FilterCache"): CALLER,
    ("state/generation.py", "Generation"): COMMIT,
    ("storage/disk/batch_read.py", "_NativeAio"): OWN,
    ("tenancy/tenant_cache.py", "TenantRowCache"): f"{CALLER}; what bitmaps take is {ROUGH}, made good by an eviction",
    ("wire/filters.py", "_FilterReader"): OWN,
}


def unlocked_changes(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """Names of classes and functions around each `object.attribute += ...` that is outside a lock."""

    def walk(node: ast.AST, names: tuple[str, ...], locked: bool) -> Iterator[tuple[str, ...]]:
        for child in ast.iter_child_nodes(node):
            inside, under = names, locked
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside, under = (*names, child.name), False
            elif isinstance(child, ast.With | ast.AsyncWith):
                under |= any(LOCKED.search(ast.unparse(item.context_expr)) for item in child.items)
            changes = isinstance(child, ast.AugAssign) and isinstance(child.target, ast.Attribute)
            if changes and not under and inside[-1:] != ("__init__",):
                yield inside
            yield from walk(child, inside, under)

    yield from walk(tree, (), False)


def test_changes_outside_a_lock_are_those_that_are_listed() -> None:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        path = file.relative_to(PACKAGE)
        if not ELSEWHERE.intersection(path.parts):
            found |= {(str(path), names[0]) for names in unlocked_changes(ast.parse(file.read_text("utf-8")))}
    assert found == set(LISTED)


def test_a_change_outside_a_lock_is_seen_and_one_inside_is_not() -> None:
    source = "class A:\n    def f(self):\n        with self._lock:\n            self.n += 1\n        {}\n"
    assert list(unlocked_changes(ast.parse(source.format("pass")))) == []
    assert list(unlocked_changes(ast.parse(source.format("self.n += 1")))) == [("A", "f")]
