"""demo: real word vectors in a database on disk, searched through a graph, with recall and speed measured.

    load    GloVe, 400,000 words x 50, in batches. A batch is durable when upsert returns: a killed run can be resumed
    build   the graph
    show    neighbours of a few words, recall@10 against exact search, queries per second, memory, disk

A second run finds everything in place and only does the last step. Recall is measured with words drawn with a fixed
seed. A small collection, "questions", keeps their vectors and exact neighbours, so that a second run need not read
GloVe or search exactly again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import vecdb
from vecdb.cli.output import Output, size, table
from vecdb.validate.arguments import cores

glove_rows = 400_000
glove_dim = 50
batch_rows = 20_000
queries_count = 200
queries_seed = 20_140
speed_seconds = 0.2
shown_words = ("king", "guitar", "neuron", "lisbon")


def demo(
    path: Annotated[Path, typer.Option(help="Where the database goes.")] = Path("demo-data"),
    rows: Annotated[
        int, typer.Option(help="Words to load, the most frequent first.", min=1, max=glove_rows)
    ] = glove_rows,
    words: Annotated[str, typer.Option(help="Words to look up, with commas between.")] = ",".join(shown_words),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Load 400,000 word vectors into a database on disk, search them, and print recall and speed."""
    out = Output(json)
    started = time.perf_counter()
    with vecdb.open(path) as database:
        docs = database.create_collection("words", dim=glove_dim, metric="cosine", exist_ok=True)
        result: dict[str, Any] = {"path": str(path), "opened_seconds": time.perf_counter() - started}
        questions = database.create_collection("questions", dim=glove_dim, metric="cosine", exist_ok=True)
        _load(docs, questions, rows, out, result)
        result["words"] = _neighbours(docs, words.split(","), out)
        result |= _measure(docs, questions, out)
        stats = docs.stats()
        result |= {"bytes_ram": stats["bytes_ram"], "bytes_disk": database.stats()["bytes_disk"]}
        result["bytes_resident"] = _resident_bytes()
        result["seconds"] = time.perf_counter() - started
    out.emit(result, lambda console: _summary(result, out))


def _load(docs: vecdb.Collection, questions: vecdb.Collection, rows: int, out: Output, result: dict[str, Any]) -> None:
    present = docs.count()
    if present < rows or not questions.count():
        from vecdb_datasets import load

        with out.waiting("reading GloVe"):
            data = load("glove-50-words")
        assert data.ids is not None
        drawn = np.random.default_rng(queries_seed).choice(rows, min(rows, queries_count), replace=False)
        questions.upsert([data.ids[row] for row in drawn], data.base[drawn])
        began = time.perf_counter()
        with out.progress("loading", "words") as report:
            report(present, rows)
            # batches are written as a whole and in order, so the number of records says where to continue
            for start in range(present, rows, batch_rows):
                stop = min(rows, start + batch_rows)
                docs.upsert(data.ids[start:stop], data.base[start:stop])
                report(stop, rows)
        result["load_seconds"] = time.perf_counter() - began
        out.say(f"loaded {rows - present:,} words in {result['load_seconds']:.1f} s, durably")
    stats = docs.stats()
    if present < rows or (stats["tail_rows"] and stats["index_stats"]["kind"] != "flat"):
        began = time.perf_counter()
        with out.progress("building the graph", "words") as report:
            docs.optimize(threads=cores(), progress=report)
        result["build_seconds"] = time.perf_counter() - began
        out.say(f"built the graph in {result['build_seconds']:.1f} s")
    else:
        out.say(f"opened {present:,} words in {result['opened_seconds']:.2f} s")
    result["rows"] = docs.count()


def _neighbours(docs: vecdb.Collection, words: list[str], out: Output) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for record, word in zip(docs.get(words, include_vectors=True), words, strict=True):
        if record is None:
            out.note(f"no word {word!r} among these")
            continue
        hits = docs.search(record.vector, limit=9)
        found[word] = [{"word": hit.id, "distance": hit.distance} for hit in hits if hit.id != word][:8]
    shown = [(word, "  ".join(str(near["word"]) for near in near_words)) for word, near_words in found.items()]
    if not out.as_json:
        out.console.print(table(["word", "nearest words"], shown))
    return found


def _measure(docs: vecdb.Collection, questions: vecdb.Collection, out: Output) -> dict[str, float]:
    """Recall@10 against exact search, and the speed of single searches and of batches. questions : the queries."""
    records = [record for batch in questions.iter(include_vectors=True) for record in batch]
    queries = np.stack([record.vector for record in records])
    rows = docs.count()
    with out.waiting("measuring"):
        if any(record.fields.get("rows") != rows for record in records):
            exact = docs.search(queries, limit=10, params=vecdb.SearchParams(exact=True, threads=cores())).ids.tolist()
            answers = [{"rows": rows, "nearest": nearest} for nearest in exact]
            questions.upsert([record.id for record in records], queries, fields=answers)
        else:
            exact = [record.fields["nearest"] for record in records]
        found = docs.search(queries, limit=10)
        pairs = zip(found.ids.tolist(), exact, strict=True)
        recall = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))
        searched, began = 0, time.perf_counter()
        while (single := time.perf_counter() - began) < speed_seconds:
            docs.search(queries[searched % len(queries)], limit=10)
            searched += 1
        batches, began = 0, time.perf_counter()
        while (batch := time.perf_counter() - began) < speed_seconds:
            docs.search(queries, limit=10)
            batches += 1
    return {
        "recall_at_10": recall,
        "queries_per_second_single": searched / single,
        "queries_per_second_batch": batches * len(queries) / batch,
    }


def _summary(result: dict[str, Any], out: Output) -> None:
    rows = [
        ("recall@10 against exact search", f"{result['recall_at_10']:.3f}"),
        ("queries per second, one at a time, one thread", f"{result['queries_per_second_single']:,.0f}"),
        ("queries per second, in batches, one thread", f"{result['queries_per_second_batch']:,.0f}"),
        ("memory of the collection", size(result["bytes_ram"])),
        ("memory of the process", size(result["bytes_resident"])),
        ("disk", size(result["bytes_disk"])),
    ]
    out.console.print(table([f"{result['rows']:,} words x {glove_dim}, cosine", ""], rows))


def _resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
