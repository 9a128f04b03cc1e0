"""threads: single calls of `Collection.search` from 1, 2, 4, ... threads of one process, and from as many reading
processes; of this tree and of another one (`base`), in turns.

    parent --line--> child      {"threads": 4, "seconds": 1.0, "at": 123.4}: begin at that time of the monotonic clock
    parent <--line-- child      {"calls": ..., "median_us": ..., "p99_us": ...}

The database is built once, by the base. A child runs this file with its tree in front of the path, so that nothing but
vecdb and NumPy is needed: `python bench/vecdb_bench/calls/threads.py --base OTHER_TREE` works where the command cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LIMIT, RECALL, QUERIES = 10, 0.95, 1_000
COUNTS = (1, 2, 4, 8, 16)
_WIDTHS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256)
_START_S = 0.05  # after the parent has asked; lines of all children are read by then
_WARM_S = 0.3


def threads(
    base: str | None = None,
    vectors: str | None = None,
    rows: int = 200_000,
    metric: str = "l2",
    seconds: float = 1.0,
    rounds: int = 3,
    counts: Sequence[int] = COUNTS,
    processes: bool = True,
    say: Callable[[str], None] = print,
    measured_machine: bool = True,
) -> dict[str, Any]:
    """base : a tree with a package `vecdb` to compare with.   vectors : a .npy or .u8bin file, whose last 1,000 rows
    are the queries; without it clustered ones of dim 128 are made.
    """
    here = str(Path(__file__).resolve().parents[3])
    trees = {"base": base, "this": here} if base else {"this": here}
    with tempfile.TemporaryDirectory() as folder:
        data, queries = _data(vectors, rows)
        np.save(f"{folder}/rows.npy", data)
        np.save(f"{folder}/queries.npy", queries)
        say(f"building a graph of {len(data):,} x {data.shape[1]} {data.dtype}")
        built = _Child(base or here, folder).ask(build=True, metric=metric)
        say(f"built in {built['seconds']:.0f} s; ef {built['ef']} has recall {built['recall']:.3f}")
        result: dict[str, Any] = {"benchmark": "threads", "rows": len(data), "metric": metric, "tables": {}} | built
        result["tables"]["calls"] = _best(
            [row for way in (("threads", "processes") if processes else ("threads",))
             for row in _measured(way, trees, folder, built["ef"], seconds, rounds, counts, say)]
        )  # fmt: skip
    if measured_machine:
        from vecdb_bench.reporting import machine  # which the file alone cannot do without the command's packages

        result["machine"] = machine.facts()
    return result


def _data(vectors: str | None, rows: int) -> tuple[np.ndarray, np.ndarray]:
    data: np.ndarray
    if vectors is None:
        rng = np.random.default_rng(3)
        centres = rng.normal(0, 1, (1_000, 24))
        points = centres[rng.integers(0, 1_000, rows + QUERIES)] + rng.normal(0, 0.6, (rows + QUERIES, 24))
        data = (points @ rng.normal(0, 1, (24, 128))).astype(np.float32)
    elif vectors.endswith(".npy"):
        data = np.load(vectors, mmap_mode="r")[: rows + QUERIES].astype(np.float32)
    else:
        dim = int(np.fromfile(vectors, np.uint32, 2)[1])
        data = np.fromfile(vectors, np.uint8, (rows + QUERIES) * dim, offset=8).reshape(-1, dim)
    return np.ascontiguousarray(data[:-QUERIES]), np.ascontiguousarray(data[-QUERIES:], np.float32)


def _measured(
    way: str, trees: dict[str, str], folder: str, ef: int, seconds: float, rounds: int, counts: Sequence[int],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    found = []
    for round_ in range(rounds):
        for name, tree in trees.items():
            many = 1 if way == "threads" else max(counts)
            children = [_Child(tree, folder) for _ in range(many)]
            for child in children:
                child.tell(open=True, ef=ef, read_only=way == "processes")
            for child in children:
                child.hear()
            for count in counts:
                at = time.monotonic() + _START_S
                asked = children[:1] if way == "threads" else children[:count]
                for child in asked:
                    child.tell(threads=count if way == "threads" else 1, seconds=seconds, at=at)
                heard = [child.hear() for child in asked]
                rate = sum(one["rate"] for one in heard)
                say(f"round {round_ + 1}, {name}, {count} {way}: {rate:,.0f} calls a second")
                found.append(
                    {"way": way, "tree": name, "count": count, "rate": rate,
                     "median_us": float(np.median([one["median_us"] for one in heard])),
                     "p99_us": max(one["p99_us"] for one in heard)}
                )  # fmt: skip
            for child in children:
                child.end()
    return found


def _best(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The round with the highest rate, of each tree, way and count, with what the bars ask for."""
    best: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in found:
        key = row["way"], row["tree"], row["count"]
        if key not in best or row["rate"] > best[key]["rate"]:
            best[key] = row
    for (way, tree, count), row in best.items():
        one = best.get((way, tree, 1), row)
        row["by_one"] = row["rate"] / one["rate"]
        row["p99_by_median_of_one"] = row["p99_us"] / one["median_us"]
        base = best.get((way, "base", count))
        row["by_base"] = row["rate"] / base["rate"] if base is not None and tree != "base" else None
    return list(best.values())


class _Child:
    """A process with a tree of its own."""

    def __init__(self, tree: str, folder: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--child", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=os.environ | {"PYTHONPATH": tree},
        )  # fmt: skip

    def tell(self, **line: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a child has ended: see its error above")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, **line: Any) -> dict[str, Any]:
        self.tell(**line)
        heard = self.hear()
        self.end()
        return heard

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _answer_lines(folder: str) -> None:
    """The child: lines in, lines out, until there are no more."""
    import vecdb

    docs, queries, ef = None, list(np.load(f"{folder}/queries.npy")), 0
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("build"):
            answer = _built(folder, asked["metric"])
        elif asked.get("open"):
            ef = asked["ef"]
            docs = vecdb.open(f"{folder}/db", read_only=asked["read_only"]).collection("docs")
            _run(docs, queries, ef, 1, _WARM_S, time.monotonic())
            answer = {}
        else:
            answer = _run(docs, queries, ef, asked["threads"], asked["seconds"], asked["at"])
        print(json.dumps(answer), flush=True)


def _built(folder: str, metric: str) -> dict[str, Any]:
    import vecdb

    data, queries = np.load(f"{folder}/rows.npy"), np.load(f"{folder}/queries.npy")
    started = time.perf_counter()
    with vecdb.open(f"{folder}/db") as db:
        dtype = "uint8" if data.dtype == np.uint8 else "float32"
        docs = db.create_collection("docs", data.shape[1], metric, dtype=dtype, index=vecdb.Hnsw())
        for start in range(0, len(data), 50_000):
            part = data[start : start + 50_000]
            docs.upsert(np.arange(start, start + len(part)), part)
        docs.optimize()
        seconds = time.perf_counter() - started
        true = docs.search(queries[:200], LIMIT, params=vecdb.SearchParams(exact=True, threads=os.cpu_count() or 1))
        for ef in _WIDTHS:
            near = docs.search(queries[:200], LIMIT, params=vecdb.SearchParams(ef=ef))
            recall = float(np.mean([len(set(a) & set(b)) / LIMIT for a, b in zip(near.ids, true.ids, strict=True)]))
            if recall >= RECALL:
                break
    return {"seconds": seconds, "ef": ef, "recall": recall}


def _run(docs: Any, queries: list[np.ndarray], ef: int, threads: int, seconds: float, at: float) -> dict[str, Any]:
    """Single calls from so many threads, from the moment `at` on."""
    import vecdb

    params = vecdb.SearchParams(ef=ef)
    took: list[list[float]] = [[] for _ in range(threads)]
    elapsed = [0.0] * threads

    def calls(number: int) -> None:
        clock, search, note = time.perf_counter, docs.search, took[number].append
        place = number * 97
        while time.monotonic() < at:
            time.sleep(0.001)
        began = ended = clock()
        stop = began + seconds
        while ended < stop:
            place += 1
            before = clock()
            search(queries[place % QUERIES], LIMIT, params=params, fields=[])
            ended = clock()
            note(ended - before)
        elapsed[number] = ended - began

    running = [threading.Thread(target=calls, args=(number,)) for number in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    all_took = 1e6 * np.concatenate([np.array(one) for one in took])
    rate = sum(len(one) / spent for one, spent in zip(took, elapsed, strict=True))
    return {"rate": rate, "median_us": float(np.median(all_took)), "p99_us": float(np.percentile(all_took, 99))}


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = ["           tree  count   calls/s  by one  by base   p50 us    p99 us p99/p50 of one"]
    for row in result["tables"]["calls"]:
        base = "" if row["by_base"] is None else f"{row['by_base']:.2f}"
        lines.append(
            f"{row['way']:10} {row['tree']:5} {row['count']:5} {row['rate']:9,.0f} {row['by_one']:7.2f} {base:>8} "
            f"{row['median_us']:8.0f} {row['p99_us']:9.0f} {row['p99_by_median_of_one']:8.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--base", help="a tree of another commit to compare with")
    parser.add_argument("--vectors", help="a .npy or .u8bin file; else clustered vectors are made")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--metric", default="l2")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="how many threads and processes")
    parser.add_argument("--no-processes", action="store_true", help="threads only")
    parser.add_argument("--out", help="a file for the figures as JSON")
    given = parser.parse_args()
    if given.child:
        _answer_lines(given.child)
        return
    counts = [int(one) for one in given.counts.split(",")]
    result = threads(
        given.base, given.vectors, given.rows, given.metric, given.seconds, given.rounds, counts,
        not given.no_processes, lambda text: print(text, file=sys.stderr, flush=True),
        measured_machine=False,
    )  # fmt: skip
    # as in machine.cores, which the file alone cannot do without
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ef, recall = result["ef"], result["recall"]
    print(f"{cores} cores, ef {ef}, recall {recall:.3f}, best of {given.rounds}")
    print(table(result))
    if given.out:
        Path(given.out).write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
