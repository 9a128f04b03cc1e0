"""Tables and sentences of README, in Markdown. Every figure in them is of a kept result, or a ratio of two of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vecdb
from vecdb_bench.figures import kept
from vecdb_bench.figures.kept import Kept, Rows
from vecdb_bench.reporting import recall_curves

_MIB = 2**20
_DISKANN = "R=64, L=100, 32 PQ bytes, beam 4"  # engines/disk/diskann.py
_PEERS = {  # package: its name in words
    "hnswlib": "hnswlib", "faiss-cpu": "faiss", "usearch": "usearch", "diskannpy-rust": "diskannpy-rust",
    "zvec": "zvec", "lancedb": "lancedb", "qdrant-edge-py": "qdrant-edge", "scalable-vs": "svs",
    "pyglass-portable": "glass", "pyvsag": "vsag", "ngt": "ngt", "lorann": "lorann",
}  # fmt: skip


class Results:
    """Kept results of a folder by name, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Kept] = {}

    def __getitem__(self, name: str) -> Kept:
        if name not in self._read:
            self._read[name] = kept.read(self._folder / f"{name}.json")
        return self._read[name]


# -- the parts of README ----------------------------------------------------------------------------------


def recall(results: Results) -> str:
    """How many times as fast on the set that is drawn, and the table of the other."""
    drawn, other = results["recall-summaries"], results["recall-glove"]
    peers = [name for name in _each(drawn.rows["points"], "peer") if name != "vecdb"]
    times = [
        [_times(_by_peer(drawn.rows["points"], 0.95, peer, mode=mode)) for mode in ("batch", "single")]
        for peer in peers
    ]
    as_many = _listed([f"{a} and {b} times as many as {peer}" for peer, (a, b) in zip(peers, times, strict=True)])
    about = (
        f"Among {drawn.data['rows']:,} sentences of {drawn.data['dim']} dimensions, at a recall@10 of 0.95, vecdb "
        f"answers in batches and in single calls {as_many} (M={drawn.plan['m']}, "
        f"ef_construction={drawn.plan['ef_construction']}). Among {other.data['rows']:,} word vectors of "
        f"{other.data['dim']}:"
    )
    builds = {one["peer"]: one for one in other.rows["builds"]}
    lines = []
    for mode, words in {"batch": "a batch in one call", "single": "one call per query"}.items():
        for peer, build in builds.items():
            rates = [_count(rate(other.rows["points"], at, peer=peer, mode=mode)) for at in recall_curves.targets]
            where = "durable on disk" if peer == "vecdb" else "in memory"
            built = [f"{build['seconds']:.0f} s, {where}", f"{build['anonymous_bytes'] / _MIB:.0f} MiB"]
            lines.append([f"{peer}, {words}", *rates, *(built if mode == "batch" else ["", ""])])
    cpu = other.clock == "cpu"
    rates_of = f"queries a second{' of processor time' if cpu else ''}, at recall"
    build_of = "build, processor time" if cpu else f"build, {next(iter(builds.values()))['threads']} threads"
    header = [rates_of, *(f"{one:.2f}" for one in recall_curves.targets), build_of, "memory"]
    made = table(header, lines)
    return f"{about}\n\n{made}\n\n{source(drawn)}<br>\n{source(other)}"


def disk(results: Results) -> str:
    one = results["disk-sift"]
    points, rows = one.rows["points"], one.plan["rows"]
    highest = {peer: max(p["recall"] for p in points if p["peer"] == peer) for peer in _each(points, "peer")}
    recalls = (0.90, 0.95, min(0.975, *highest.values()))
    names = {"vecdb": "vecdb", "vecdb-codes-on-disk": "vecdb, no codes in memory", "diskannpy-rust": "diskannpy-rust"}
    lines = []
    for peer in (name for name in names if name in highest):
        build = _only(one.rows["builds"], peer=peer)
        own = [p for p in points if p["peer"] == peer and p["recall"] >= 0.85]
        tails = [p["p99_by_mean"] for p in own]
        near = min(own, key=lambda p: abs(p["recall"] - 0.95))
        lines.append([
            names[peer], *(_count(rate(points, at, peer=peer)) for at in recalls),
            f"{near['reads']:.0f}" if "reads" in near else "hop by hop", f"{min(tails):.1f} - {max(tails):.1f}",
            f"{build['memory_bytes'] / 1e6:.0f} MB", f"{build['disk_bytes'] / (128 * rows):.1f}x raw",
            f"{build['seconds']:.0f} s",
        ])  # fmt: skip
    header = ["queries a second at recall", *(f"{at:.3g}" for at in recalls), "reads at 0.95", "p99 / mean"]
    made = table([*header, "memory", "disk", f"build, {one.plan['threads']} threads"], lines)
    speed = one.rows["disk"][0]
    times = [f"{_times(_by_peer(points, at, 'diskannpy-rust'))} times as many at {at:g}" for at in recalls[:2]]
    about = (
        f"{rows:,} SIFT descriptors of photographs, 128 x uint8, on SSD, one call per query: vecdb answers "
        f"{_listed(times)} as DiskANN ({_DISKANN}). The disk gives {speed['reads/s at depth 1']:,.0f} reads a second "
        f"one by one, {speed['reads/s at depth 32']:,.0f} at depth 32."
    )
    again = results["disk-sift-loaded"]
    return f"{about}\n\n{made}\n\n{_again(again)}\n\n{source(one)}<br>\n{source(again)}"


def _again(again: Kept) -> str:
    """The same on a machine that had much else to do, with what memory takes, which load does not change."""
    times = [_times(_by_peer(again.rows["points"], at, "diskannpy-rust")) for at in (0.90, 0.95)]
    memory = {row["peer"]: f"{row['memory_bytes'] / 1e6:.0f} MB" for row in again.rows["builds"]}
    return (
        f"Measured again on {again.date}, on a machine with much else to do, it was {_listed(times)} times as many, "
        f"with {memory['vecdb']} of memory (DiskANN {memory['diskannpy-rust']}); without codes in memory "
        f"(`memory_budget_bytes=0`) {memory['vecdb-codes-on-disk']}."
    )


def tenants(results: Results) -> str:
    one, apart, sizes = (results[f"tenants-{name}"] for name in ("summaries", "apart", "sizes"))
    points, count = one.rows["points"], f"{one.data['tenants']:,}"
    default = _only(points, contestant="vecdb", value=None)
    lines = [_tenant_line("`vecdb.Curator()`, one collection", default)]
    peers = {"hnswlib-200": f"{count} hnswlib indexes", "faiss": "one faiss HNSW with a bitmap"}
    for peer, name in peers.items():
        own = sorted((p for p in points if p["contestant"] == peer), key=lambda p: float(p["recall"]))
        enough = [p for p in own if p["recall"] >= 0.95]
        lines += [_tenant_line(f"{name}, ef {p['value']}", p) for p in enough[:3]]
    about = (
        f"{one.data['rows']:,} sentences x {one.data['dim']}, {count} words as tenants, {one.data['pairs']:,} (record, "
        "tenant) pairs, tenants drawn by size:"
    )
    made = table(["", "recall", "mean", "p99"], lines)
    after = f"{_memory(one)}{_apart(apart)} {_sizes(sizes)} {_grants(sizes)}"
    sources = "<br>\n".join(map(source, (one, apart, sizes)))
    return f"{about}\n\n{made}\n\n{after}\n\n{sources}"


def _tenant_line(name: str, point: Mapping[str, Any]) -> list[str]:
    return [name, f"{point['recall']:.3f}", *(_us(1e3 * point[mark]) for mark in ("mean_ms", "p99_ms"))]


def _us(value: float) -> str:
    return f"{value:.0f} us" if value < 1_000 else f"{value / 1e3:.1f} ms"


def _memory(one: Kept) -> str:
    if "memory" not in one.rows:
        return ""
    ours, theirs = (
        f"{_only(one.rows['memory'], contestant=name)['searched'] / _MIB:,.0f} MiB" for name in ("vecdb", "hnswlib-200")
    )
    return f"When all have searched, vecdb holds {ours} of memory beside its mapped vectors, the indexes {theirs}. "


def _apart(apart: Kept) -> str:
    ours, theirs = (_only(apart.rows["best"], contestant=name) for name in ("vecdb", "hnswlib-200"))
    return (
        "Each in a process of its own, whose caches are cold whenever its turn comes, vecdb takes "
        f"{1e3 * ours['mean_ms']:.0f} us at {ours['recall']:.3f}, hnswlib {1e3 * theirs['mean_ms']:.0f} at "
        f"{theirs['recall']:.3f}."
    )


def _sizes(one: Kept) -> str:
    sizes = one.rows["sizes"]
    shown = sorted({row["rows"] for row in sizes} & {1_000, 8_000, 40_000})
    chosen, graph = (
        [f"{1e3 * row['mean_ms']:.0f}" for row in sizes if row["way"] == way and row["rows"] in shown]
        for way in ("chosen", "graph")
    )
    return (
        f"A tenant of {_listed([f'{size:,}' for size in shown])} of these records takes {_listed(chosen)} us; vecdb's "
        f"own HNSW with a bitmap, as wide as 0.95 takes, {_listed(graph)}."
    )


def _grants(one: Kept) -> str:
    rates = [
        _count(_only(one.rows["writes"], what=what)["per_second"])
        for what in ("grant to one tenant, scattered rows", "grant of random pairs")
    ]
    return f"Grants are durable at {rates[0]} records a second to one tenant, {rates[1]} where tenants are random."


def filters(results: Results) -> str:
    """Microseconds at some shares; where no width reaches the recall, the best that was."""
    one = results["filters-glove"]
    points = one.rows["points"]
    names = _each(points, "engine")
    lines = []
    for percent in (10, 1, 0.1):
        for where in _each(points, "correlation"):
            some = {p["engine"]: p for p in points if (p["percent"], p["correlation"]) == (percent, where)}
            cells = [_filtered(some.get(name)) for name in names]
            lines.append([f"{percent:g} %", where, *cells])
    about = (
        f"{one.data['rows']:,} word vectors of {one.data['dim']}, one keyword that matches a share of them: drawn at "
        "random, the cluster nearest to the query, or the farthest one. Median us of a search, each engine at the "
        f"smallest width whose recall@10 is {one.plan['recall']:g}, and vecdb also as it searches by default:"
    )
    made = table(["match", "where", *names], lines)
    return f"{about}\n\n{made}\n\n{_answers(one)}\n\n{source(one)}"


def _answers(one: Kept) -> str:
    """Of default searches: whether they are whole, and how near."""
    rows = one.rows["answers"]
    if not rows:
        raise vecdb.InvalidArgument("the kept result of filters has no cells: keep a run of the measures cells,peers")
    kinds = ", ".join(_each(rows, "kind"))
    cells, wrong = sum(row["cells"] for row in rows), sum(row["wrong answers"] for row in rows)
    queries = cells * one.plan["queries"]
    counted = [row for row in rows if row["limit"] > 1]
    below = sum(row[f"cells below {one.plan['recall']}"] for row in counted)
    mean = sum(row["recall, mean"] for row in counted) / len(counted)
    return (
        f"Default searches of indexes of the kinds {kinds} gave exactly min(limit, matches) hits, at their true "
        f"distances, in {queries - wrong:,} of {queries:,} answers, over {cells:,} pairs of a condition and a limit. "
        f"Recall@10 and @100 were {mean:.3f} on average, {min(row['least'] for row in counted):.3g} at the least, and "
        f"below {one.plan['recall']:g} in {below} of {sum(row['cells'] for row in counted)} pairs."
    )


def _filtered(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return "-"
    return f"none, {point['recall']:.2f}" if point["us"] is None else f"{point['us']:,.0f}"


def writes(results: Results) -> str:
    ingest, beside, start = (results[name] for name in ("ingest", "interference", "coldstart"))
    batches, singles, sustained = (ingest.rows[name][0] for name in ("batches", "singles", "sustained"))
    ratios = sorted(row["p99 ratio"] for row in next(iter(beside.rows.values())))
    seconds = {row["step"]: row["best"] for row in next(iter(start.rows.values()))}
    text = (
        f"Durable batches of {ingest.plan['batch_rows']:,} x {ingest.plan['dim']} float32 are acknowledged at "
        f"{_count(batches['rows_per_second'])} rows a second ({_count(sustained['rows_per_second_with_graph'])} with "
        f"the graph keeping up); single upserts from {ingest.plan['threads']} threads at "
        f"{_count(singles['rows_per_second'])} a second, {_count(singles['rows_per_commit'])} to a commit. "
        f"A search's p99 beside a thread that upserts batches is {_times(ratios[0])} to {_times(ratios[-1])} "
        f"times its idle p99. `import vecdb` takes "
        f"{seconds['import vecdb'] - seconds['interpreter alone']:.2f} s, the first search on an empty kernel cache "
        f"{seconds['open and search, empty cache']:.0f} s, in the next process "
        f"{seconds['open and search, next process']:.1f} s."
    )
    return f"{text}\n\n" + "<br>\n".join(map(source, (ingest, beside, start)))


def threads(results: Results) -> str:
    calls, served = results["threads-16-cores"], results["workers-16-cores"]
    rows = calls.rows["calls"]
    counts = sorted(_each(rows, "count"))
    ways = {
        ("threads", "this"): "threads",
        ("threads", "base"): "threads, the version before",
        ("processes", "this"): "processes",
    }
    lines = [
        [name, *(_count(_only(rows, way=way, tree=tree, count=count)["rate"]) for count in counts)]
        for (way, tree), name in ways.items()
    ]
    about = (
        "Single calls of `Collection.search` a second, from threads of one process and from as many reading processes, "
        f"{calls.data['rows']:,} x {calls.data['dim']} float32, recall {calls.data['recall']:g}:"
    )
    made = table(["callers", *map(str, counts)], lines)
    return f"{about}\n\n{made}\n\n{_served(served)}\n\n{source(calls)}<br>\n{source(served)}"


def _served(served: Kept) -> str:
    rows = served.rows["rates"]
    parts = []
    for batch, words in ((1, "one query"), (32, "32 queries")):
        many, single = (
            [_count(row["rate"]) for row in rows if (row["workers"], row["batch"]) == (workers, batch)]
            for workers in (15, 1)
        )
        parts.append(f"with {words} a call {_listed(many)} a second, where one process answers {_listed(single)}")
    clients = _listed([str(one) for one in sorted(_each(rows, "clients"))])
    size = f"{served.data['rows']:,} x {served.data['dim']}"
    return f"A server with 15 workers, {size}, answers {clients} clients {'; '.join(parts)}."


PARTS: dict[str, Callable[[Results], str]] = {
    "recall": recall, "disk": disk, "tenants": tenants, "filters": filters, "writes": writes, "threads": threads,
}  # fmt: skip


# -- what they have in common ----------------------------------------------------------------------------


def source(one: Kept) -> str:
    """Where a result is from: the command, when, on what, beside which versions."""
    peers = [f"{_PEERS[name]} {version}" for name, version in one.versions.items() if name in _PEERS]
    clock = "processor time" if one.clock == "cpu" else ""
    words = [f"`{one.command}`", one.date, _machine(one.machine), clock, ", ".join(peers), one.how]
    return f"<sub>{'; '.join(word for word in words if word)}</sub>"


def _machine(machine: Mapping[str, Any]) -> str:
    name = str(machine["processor"]).replace("(R)", "").replace("(TM)", "").replace(" Processor", "")
    features = set(machine.get("features", ()))
    best = "AVX-512 VNNI" if "avx512_vnni" in features else "AVX2" if "avx2" in features else ""
    load = machine.get("load")
    parts = [f"{machine['cores']} cores, {name}", best, f"load {load[-1]:.0f}" if load else ""]
    return ", ".join(part for part in parts if part)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rate(points: Rows, recall: float, **wanted: Any) -> float | None:
    """Queries a second at a recall, of the points with these values. points : recall, and rate or mean_ms."""
    some = [one for one in points if all(one[name] == value for name, value in wanted.items())]
    curve = [(p["recall"], p["rate"] if "rate" in p else 1e3 / p["mean_ms"]) for p in some]
    return recall_curves.rate_at(curve, recall)


def _by_peer(points: Rows, at: float, peer: str, **wanted: Any) -> float:
    """vecdb's rate at a recall by a peer's."""
    ours, theirs = (rate(points, at, peer=name, **wanted) for name in ("vecdb", peer))
    if ours is None or theirs is None:
        raise vecdb.InvalidArgument(f"vecdb or {peer} does not reach a recall of {at} in a kept result")
    return ours / theirs


def _only(among: Rows, **wanted: Any) -> Mapping[str, Any]:
    """The one row with these values."""
    found = [one for one in among if all(one[name] == value for name, value in wanted.items())]
    if len(found) != 1:
        raise vecdb.InvalidArgument(f"{len(found)} rows of a kept result have {wanted}; expected one")
    return found[0]


def _each(among: Rows, name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in among))


def _count(value: float | None) -> str:
    """A rate, or a number of things; of few two digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 20 else f"{value:.2g}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
