"""A folder of `vecdb dataset export --format big-ann` as a data set of big-ann-benchmarks' streaming track.

    python own_set.py write FOLDER NAME.yaml    a runbook of inserts, deletes, replacements, each followed by a search,
                                                and the truth after each: FOLDER/<rows>/NAME.yaml/step<i>.gt100
    python own_set.py run FOLDER ...            upstream's `run`, to which the folder's name is a data set
    python own_set.py recall FOLDER NAME.yaml   what upstream's own code makes of the results

To be run in upstream's root. Upstream knows its own sets alone, has no tool of its own for truth, and that of DiskANN
refuses uint8; so the truth is numpy's, in float64. Distances are euclidean.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TYPES = {"u8bin": "uint8", "i8bin": "int8", "fbin": "float32"}
SLICES = 50  # what a step changes is a slice of the rows
START, LEAST, MOST = 20, 15, 45  # slices there after the first step, and at least and at most after any other
Entry = dict[str, Any]


def make_runbook(n: int, steps: int, seed: int = 0) -> list[Entry]:
    """Steps in the order in which they are done: a change, a search, a change, ...

    A row is never held by two tags, so that no two records of a step are the same.
    """
    rng, size = np.random.default_rng(seed), n // SLICES
    held = {tag: tag for tag in range(START)}  # slice of tags -> slice of rows that it holds
    entries: list[Entry] = [{"operation": "insert", "start": 0, "end": START * size}]
    while len(entries) < steps:
        if len(entries) % 2:
            entries.append({"operation": "search"})
            continue
        free = sorted(set(range(SLICES)) - set(held.values()))
        new = [tag for tag in free if tag not in held]
        can = ["replace"] * bool(free) + ["insert"] * bool(new and len(held) < MOST) + ["delete"] * (len(held) > LEAST)
        operation = can[rng.integers(len(can))]
        tag = int(rng.choice(new if operation == "insert" else sorted(held)))
        span = {"start": tag * size, "end": (tag + 1) * size}
        if operation == "insert":
            held[tag] = tag
        elif operation == "delete":
            del held[tag]
        else:
            held[tag] = row = int(rng.choice(free))
            span = {"tags_start": span["start"], "tags_end": span["end"], "ids_start": row * size,
                    "ids_end": (row + 1) * size}  # fmt: skip
        entries.append({"operation": operation, **span})
    return entries


def true_neighbours(rows: Any, queries: Any, entries: list[Entry], k: int) -> Iterator[tuple[int, Any, Any]]:
    """(step from 1, tags uint32[nq, k], squared distances float32[nq, k]) of each search. rows : [n, dim]."""
    tag_of = np.full(len(rows), -1, np.int64)  # by row
    row_of = np.full(len(rows), -1, np.int64)  # by tag
    width = min(len(rows), 50 * k)
    near, distances = _nearest(rows, queries, width)
    for step, entry in enumerate(entries, 1):
        match entry["operation"]:
            case "insert":
                _hold(tag_of, row_of, np.arange(entry["start"], entry["end"]), entry["start"])
            case "delete":
                _hold(tag_of, row_of, np.arange(entry["start"], entry["end"]), None)
            case "replace":
                _hold(tag_of, row_of, np.arange(entry["tags_start"], entry["tags_end"]), entry["ids_start"])
            case _:
                while (tag_of[near] >= 0).sum(axis=1).min() < k:
                    if width == len(rows):
                        raise ValueError(f"step {step}: fewer than {k} records are there")
                    width = min(len(rows), 4 * width)
                    near, distances = _nearest(rows, queries, width)
                there = tag_of[near] >= 0
                first = there & (there.cumsum(axis=1) <= k)
                yield (
                    step,
                    tag_of[near[first]].reshape(-1, k).astype(np.uint32),
                    distances[first].reshape(-1, k).astype(np.float32),
                )


def _hold(tag_of: Any, row_of: Any, tags: Any, first_row: int | None) -> None:
    """Let tags hold the rows from one on, or none; what they held is free."""
    before = row_of[tags]
    tag_of[before[before >= 0]] = -1
    row_of[tags] = -1 if first_row is None else np.arange(first_row, first_row + len(tags))
    if first_row is not None:
        if (tag_of[row_of[tags]] >= 0).any():
            raise ValueError(f"rows from {first_row} on are held by other tags")
        tag_of[row_of[tags]] = tags


def _nearest(rows: Any, queries: Any, width: int) -> tuple[Any, Any]:
    """Rows and squared distances of the nearest, in order, ties by row: int64[nq, width], float64[nq, width]."""
    base = np.asarray(rows, np.float64)
    squares = np.einsum("ij,ij->i", base, base)
    near = np.empty((len(queries), width), np.int64)
    distances = np.empty((len(queries), width))
    for start in range(0, len(queries), 50):
        block = np.asarray(queries[start : start + 50], np.float64)
        apart = np.einsum("ij,ij->i", block, block)[:, None] + squares - 2 * (block @ base.T)
        chosen = np.argpartition(apart, width - 1, axis=1)[:, :width]
        chosen.sort(axis=1)
        found = np.take_along_axis(apart, chosen, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        near[start : start + 50] = np.take_along_axis(chosen, order, axis=1)
        distances[start : start + 50] = np.take_along_axis(found, order, axis=1)
    return near, distances


def _files(folder: Path) -> tuple[str, str, Any, Any]:
    """(ending, dtype, rows, queries) of an exported folder; rows and queries are mapped."""
    for ending, dtype in TYPES.items():
        if (folder / f"base.{ending}").exists():
            rows, queries = (_mapped(folder / f"{part}.{ending}", dtype) for part in ("base", "query"))
            return ending, dtype, rows, queries
    raise SystemExit(f"{folder}: none of {', '.join(f'base.{ending}' for ending in TYPES)} is there")


def _mapped(path: Path, dtype: str) -> Any:
    n, dim = (int(number) for number in np.fromfile(path, "<u4", 2))
    return np.memmap(path, dtype, "r", 8, (n, dim))


def _register(folder: Path) -> str:
    """Make the folder known to upstream by its name."""
    sys.path.insert(0, os.getcwd())
    from benchmark.datasets import DATASETS, DatasetCompetitionFormat  # upstream's; only where its root is

    ending, kind, rows, queries = _files(folder)

    class OwnSet(DatasetCompetitionFormat):
        def __init__(self) -> None:
            (self.nb, self.d), self.nq, self.dtype = rows.shape, len(queries), kind
            self.ds_fn, self.qs_fn, self.gt_fn, self.basedir = f"base.{ending}", f"query.{ending}", None, str(folder)

        def prepare(self, skip_data: bool = False, original_size: int = 0) -> None:
            """Everything is there."""

        def distance(self) -> str:
            return "euclidean"

        def default_count(self) -> int:
            return 10

        def __str__(self) -> str:
            return folder.name

    DATASETS[folder.name] = OwnSet
    return folder.name


def _write(folder: Path, runbook: Path, steps: int, seed: int) -> None:
    _, _, rows, queries = _files(folder)
    entries = make_runbook(len(rows), steps, seed)
    told = {folder.name: {"max_pts": len(rows)} | dict(enumerate(entries, 1))}
    runbook.write_text(yaml.safe_dump(told), encoding="utf-8")
    out = folder / str(len(rows)) / runbook.name
    out.mkdir(parents=True, exist_ok=True)
    for step, tags, distances in true_neighbours(rows, queries, entries, 100):
        header = np.array(tags.shape, "<u4").tobytes()
        (out / f"step{step}.gt100").write_bytes(header + tags.tobytes() + distances.tobytes())


def _run(folder: Path, arguments: list[str]) -> None:
    name = _register(folder)
    from benchmark.main import main

    sys.argv = ["run", "--dataset", name, "--neurips23track", "streaming", *arguments]
    main()


def _recall(folder: Path, runbook: Path) -> None:
    name = _register(folder)
    from benchmark.datasets import DATASETS
    from benchmark.plotting.utils import compute_metrics_all_runs
    from benchmark.results import load_all_results

    track = {"neurips23track": "streaming", "runbook_path": str(runbook)}
    results = load_all_results(name, **track)
    for run in compute_metrics_all_runs(DATASETS[name](), name, results, recompute=True, **track):
        print(f"{run['parameters']}: mean recall@{run['count']} {run['k-nn']:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Big-ann's streaming track on a set of one's own.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("write", "recall"):
        one = verbs.add_parser(verb)
        one.add_argument("folder", type=Path)
        one.add_argument("runbook", type=Path)
        one.add_argument("--steps", type=int, default=200)
        one.add_argument("--seed", type=int, default=0)
    running = verbs.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("arguments", nargs=argparse.REMAINDER, help="of upstream's `run`")
    args = parser.parse_args()
    folder = Path(os.path.abspath(args.folder))
    if args.verb == "write":
        _write(folder, args.runbook, args.steps, args.seed)
    elif args.verb == "recall":
        _recall(folder, args.runbook)
    else:
        _run(folder, args.arguments)


if __name__ == "__main__":
    main()
