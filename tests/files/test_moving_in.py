"""Collections of other databases and libraries, made by their own packages, arrive whole: ids, vectors, fields;
searches agree; a killed import goes on. Each test is skipped where its package is not installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner

DIM = 16
EXACT = vecdb.SearchParams(exact=True)


@dataclass
class Made:
    """What was made. options : of the command.   answers : ids nearest to each of some queries, by its own search."""

    path: Path
    ids: list[Any]
    fields: list[dict[str, Any]]
    options: list[str]
    answers: Callable[[Any, int], list[list[Any]]]
    metric: str


def vectors_of(n: int) -> Any:
    return np.random.default_rng(3).normal(size=(n, DIM)).astype(np.float32)


def metadata(n: int) -> list[dict[str, Any]]:
    # scores are eighths: of others Chroma gives back another number in the last place
    return [{"n": i, "lang": ("en", "de", "fr")[i % 3], "score": i / 8, "ok": i % 2 == 0} for i in range(n)]


def chroma(folder: Path, vectors: Any) -> Made:
    chromadb = pytest.importorskip("chromadb")
    settings = pytest.importorskip("chromadb.config").Settings(anonymized_telemetry=False)
    path, n = folder / "chroma", len(vectors)
    client = chromadb.PersistentClient(str(path), settings)
    options = {"hnsw": {"space": "cosine", "ef_search": 400}}
    docs = client.create_collection("docs", configuration=options, embedding_function=None)
    ids, fields = [f"doc-{i}" for i in range(n)], metadata(n)
    texts = [f"text {i}" if i % 5 else None for i in range(n)]
    for start in range(0, n, 2_000):
        part = slice(start, start + 2_000)
        docs.add(ids=ids[part], embeddings=vectors[part], metadatas=fields[part], documents=texts[part])
    docs.delete(ids=ids[:3])
    want = [row if text is None else row | {"document": text} for row, text in zip(fields, texts)]
    return Made(
        path, ids[3:], want[3:], [],
        lambda queries, k: docs.query(query_embeddings=queries, n_results=k)["ids"], "cosine",
    )  # fmt: skip


def qdrant(folder: Path, vectors: Any) -> Made:
    client_of = pytest.importorskip("qdrant_client")
    models, n = client_of.models, len(vectors)
    client = client_of.QdrantClient(path=str(folder / "qdrant"))
    one = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=one)
    ids, fields = list(range(5, n + 5)), [row | {"tags": ["a", "b"][: row["n"] % 3]} for row in metadata(n)]
    points = [models.PointStruct(id=i, vector=v.tolist(), payload=f) for i, v, f in zip(ids, vectors, fields)]
    for start in range(0, n, 1_000):
        client.upsert("docs", points[start : start + 1_000])
    client.delete("docs", models.PointIdsList(points=ids[:3]))

    def answers(queries: Any, k: int) -> list[list[Any]]:
        return [[p.id for p in client.query_points("docs", query=q.tolist(), limit=k).points] for q in queries]

    return Made(folder / "qdrant", ids[3:], fields[3:], [], answers, "cosine")


def snapshot(folder: Path, vectors: Any, shards: int = 1) -> Made:
    """The files of a shard in an archive, as a server lays them out."""
    edge = pytest.importorskip("qdrant_edge")
    n, ids, fields = len(vectors), list(range(5, len(vectors) + 5)), metadata(len(vectors))
    config = edge.EdgeConfig(vectors={"": edge.EdgeVectorParams(DIM, edge.Distance.Dot)})
    opened = []
    for at in range(shards):
        part = folder / "qdrant" / str(at)
        part.mkdir(parents=True)
        shard = edge.EdgeShard.create(str(part), config)
        rows = range(at * n // shards, (at + 1) * n // shards)
        points = [edge.Point(ids[row], vectors[row].tolist(), fields[row]) for row in rows]
        shard.update(edge.UpdateOperation.upsert_points(points))
        shard.update(edge.UpdateOperation.delete_points([one for one in ids[:3] if at == 0]))
        shard.flush()
        opened.append(shard)
    with tarfile.open(folder / "docs.snapshot", "w") as archive:
        for at in range(shards):
            archive.add(folder / "qdrant" / str(at), "." if shards == 1 else str(at))

    def answers(queries: Any, k: int) -> list[list[Any]]:
        found = []
        for q in queries:
            asked = edge.SearchRequest(edge.Query.Nearest(q.tolist()), k, 0, params=edge.SearchParams(exact=True))
            near = [one for shard in opened for one in shard.search(asked)]
            found.append([one.id for one in sorted(near, key=lambda one: -one.score)[:k]])
        return found

    return Made(folder / "docs.snapshot", ids[3:], fields[3:], [], answers, "ip")


def snapshot_of_shards(folder: Path, vectors: Any) -> Made:
    return snapshot(folder, vectors, 2)


def lance(folder: Path, vectors: Any) -> Made:
    pytest.importorskip("lance")
    lancedb = pytest.importorskip("lancedb")
    arrow = pytest.importorskip("pyarrow")
    n, db = len(vectors), lancedb.connect(str(folder / "lancedb"))
    ids, fields = [f"doc-{i}" for i in range(n)], metadata(n)
    made = arrow.Table.from_pylist([{"id": id} | row for id, row in zip(ids, fields)]).append_column(
        "vector", arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), DIM)
    )
    table = db.create_table("docs", made.slice(0, n // 2))
    table.add(made.slice(n // 2))
    table.delete("n < 3")

    def answers(queries: Any, k: int) -> list[list[Any]]:
        return [table.search(q).distance_type("l2").limit(k).to_arrow()["id"].to_pylist() for q in queries]

    return Made(folder / "lancedb", ids[3:], fields[3:], ["--metric", "l2"], answers, "l2")


def faiss(folder: Path, vectors: Any, kind: str = "IDMap,Flat") -> Made:
    library = pytest.importorskip("faiss")
    n = len(vectors)
    index = library.index_factory(DIM, kind)
    index.train(vectors)
    ids = np.arange(n) * 7 + 3
    index.add_with_ids(vectors, ids)
    if hasattr(index, "nprobe"):
        index.nprobe = 8
    library.write_index(index, str(folder / "x.idx"))
    return Made(
        folder / "x.idx", ids.tolist()[3:], [{}] * (n - 3), [], lambda q, k: index.search(q, k)[1].tolist(), "l2"
    )


def faiss_lists(folder: Path, vectors: Any) -> Made:
    return faiss(folder, vectors, "IVF8,Flat")


def usearch(folder: Path, vectors: Any) -> Made:
    library = pytest.importorskip("usearch.index")
    index = library.Index(ndim=DIM, metric="cos", dtype="f32")
    ids = np.arange(len(vectors)) * 7 + 3
    index.add(ids, vectors)
    for one in ids[:3]:
        index.remove(int(one))
    index.save(str(folder / "x.usearch"))

    def answers(queries: Any, k: int) -> list[list[Any]]:
        return [index.search(q, k, exact=True).keys.tolist() for q in queries]

    return Made(folder / "x.usearch", ids.tolist()[3:], [{}] * (len(ids) - 3), [], answers, "cosine")


MAKERS = {
    one.__name__: one for one in (chroma, qdrant, snapshot, snapshot_of_shards, lance, faiss, faiss_lists, usearch)
}
SIZES = [400, pytest.param(20_000, marks=pytest.mark.slow)]


def run(*words: object) -> tuple[int, Any]:
    """(exit code, document) of a command."""
    result = CommandRunner().run([*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def require_equal(db: Path, made: Made, vectors: Any, extra: int = 0) -> None:
    """Counts, ids, vectors and fields are those that were made; searches agree. extra : records beside them."""
    with vecdb.open(db, read_only=True) as database:
        docs = database.collection("moved")
        assert (docs.count(), docs.metric) == (len(made.ids) + extra, made.metric)
        got = docs.get(made.ids, include_vectors=True)
        assert all(record is not None for record in got)
        want = vectors[len(vectors) - len(made.ids) :]
        stored = np.stack([record.vector for record in got if record is not None])
        assert np.allclose(stored, want, rtol=1e-5, atol=1e-6)
        assert [record.fields for record in got if record is not None] == made.fields
        queries = np.random.default_rng(9).normal(size=(20, DIM)).astype(np.float32)
        ours = docs.search(queries, limit=5, params=EXACT).ids.tolist()
    theirs = made.answers(queries, 5)
    same = sum(len(set(a) & set(b)) for a, b in zip(ours, theirs))
    assert same >= 97, f"{same} of 100 neighbours; ids that are near alike may change places"


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", MAKERS)
def test_a_collection_of_others_arrives_whole(name: str, n: int, tmp_path: Path) -> None:
    vectors = vectors_of(n)
    made = MAKERS[name](tmp_path, vectors)
    extra = 3 if name.startswith("faiss") else 0  # nothing is deleted there
    code, found = run("import", made.path, "--db", tmp_path / "db", "-c", "moved", "--no-optimize", *made.options)
    assert (code, found.get("live")) == (0, n - 3 + extra), found
    require_equal(tmp_path / "db", made, vectors, extra)


KILLED = """
import os, signal, sys
from vecdb.cli import main
from vecdb.cli.commands import import_export
from vecdb.cli.imports.checkpoint import ImportCheckpoint
import_export.batch_rows_max = int(sys.argv.pop())
write = ImportCheckpoint.write
def noted(self, rows, *more):
    write(self, rows, *more)
    if rows >= 4 * import_export.batch_rows_max:
        os.kill(os.getpid(), signal.SIGKILL)
ImportCheckpoint.write = noted
main()
"""


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", MAKERS)
def test_an_import_that_was_killed_goes_on(name: str, n: int, tmp_path: Path) -> None:
    vectors = vectors_of(n)
    made = MAKERS[name](tmp_path, vectors)
    extra = 3 if name.startswith("faiss") else 0
    words = ["import", str(made.path), "--db", str(tmp_path / "db"), "-c", "moved", "--no-optimize", *made.options]
    step = n // 8
    done = subprocess.run([sys.executable, "-c", KILLED, *words, str(step)], env=os.environ, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        assert 4 * step <= db.collection("moved").count() < n - 3
    code, found = run(*words)
    assert (code, found.get("resumed_at"), found.get("live")) == (0, 4 * step, n - 3 + extra), found
    require_equal(tmp_path / "db", made, vectors, extra)


def test_collections_of_a_tenant_of_chroma_belong_to_it(tmp_path: Path) -> None:
    chromadb = pytest.importorskip("chromadb")
    settings = pytest.importorskip("chromadb.config").Settings(anonymized_telemetry=False)
    path, vectors = tmp_path / "chroma", vectors_of(40)
    admin = chromadb.AdminClient(settings.model_copy(update={"is_persistent": True, "persist_directory": str(path)}))
    client = chromadb.PersistentClient(str(path), settings.model_copy())
    client.create_collection("docs", embedding_function=None).add(ids=["1", "2"], embeddings=vectors[:2])
    client.create_collection("empty", embedding_function=None)
    for at, tenant in enumerate(("acme", "beta")):
        admin.create_tenant(tenant)
        admin.create_database("main", tenant)
        theirs = chromadb.PersistentClient(str(path), settings.model_copy(), tenant=tenant, database="main")
        made = theirs.create_collection("docs", embedding_function=None)
        made.add(ids=["1"], embeddings=vectors[10 + at : 11 + at], metadatas=[{"document": "mine"}], documents=["text"])
    to = ("--db", tmp_path / "db", "-c", "docs", "--no-optimize")
    code, found = run("import", path, *to)
    assert code == 1 and "several collections" in found["error"]["message"] and "--key" in found["error"]["message"]
    code, found = run("import", path, *to, "--key", "empty")
    assert code == 1 and "'empty' has no records" in found["error"]["message"]
    for key in ("docs", "acme/main/docs", "beta/main/docs"):
        code, found = run("import", path, *to, "--key", key)
        assert code == 0, found
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        docs = db.collection("docs")
        assert (docs.count(), docs.count(tenant="acme"), docs.count(tenant="beta")) == (4, 1, 1)
        [mine] = docs.get(["1"], owner="beta", include_vectors=True)
        assert mine is not None and np.allclose(mine.vector, vectors[11]) and mine.tenants == ["beta"]
        assert mine.fields == {"document": "mine", "document_text": "text"}


def test_what_qdrant_has_and_vecdb_has_not_is_said(tmp_path: Path) -> None:
    library = pytest.importorskip("qdrant_client")
    models = library.models
    client = library.QdrantClient(path=str(tmp_path / "q"))
    client.create_collection(
        "named",
        vectors_config={
            "a": models.VectorParams(size=4, distance=models.Distance.MANHATTAN),
            "b": models.VectorParams(size=3, distance=models.Distance.DOT),
        },
        sparse_vectors_config={"s": models.SparseVectorParams()},
    )
    uuid = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"
    sparse = models.SparseVector(indices=[1], values=[0.5])
    one = models.PointStruct(id=1, vector={"a": [1, 2, 3, 4], "b": [1, 2, 3], "s": sparse}, payload={"big": 2**70})
    client.upsert("named", [one, models.PointStruct(id=uuid, vector={"a": [4, 3, 2, 1]}, payload={})])
    client.close()
    to = ("--db", tmp_path / "db", "-c", "moved", "--no-optimize")
    code, found = run("import", tmp_path / "q", *to)
    assert code == 1 and "several vectors, ['a', 'b']; say which with --vector-column" in found["error"]["message"]
    code, found = run("import", tmp_path / "q", *to, "--vector-column", "b")
    assert code == 1 and "row 1 has no vector 'b'" in found["error"]["message"]
    code, found = run("import", tmp_path / "q", *to, "--vector-column", "a")
    said = {"vector 'b'", "sparse vector 's'", "distance Manhattan", "ids as whole numbers"}
    assert (code, found.get("live"), set(found.get("losses", ()))) == (0, 2, said), found
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        docs = db.collection("moved")
        assert docs.metric == "l2" and {record.id for record in docs.get(["1", uuid]) if record} == {"1", uuid}


def test_an_exported_lance_table_comes_back_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("lance")
    vectors = vectors_of(300)
    with vecdb.open(tmp_path / "a") as db:
        docs = db.create_collection("docs", dim=DIM, metric="ip", index=vecdb.Curator())
        fields: list[dict[str, Any]] = [{"n": i} | ({"late": b"x", "no": None} if i > 250 else {}) for i in range(300)]
        docs.upsert(range(300), vectors, fields=fields, tenants=[["acme"] if i % 2 else [] for i in range(300)])
        docs.upsert([5], vectors[:1], owner="beta", tenants={"beta"})
        want = {(record.owner, record.id): record for batch in docs.iter(include_vectors=True) for record in batch}
    out = tmp_path / "out.lance"
    assert run("export", out, "--db", tmp_path / "a", "-c", "docs")[0] == 0
    code, found = run("export", out, "--db", tmp_path / "a", "-c", "docs")
    assert code == 1 and "is there already" in found["error"]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out.lance"], "nothing is left beside it"
    code, found = run("import", out, "--db", tmp_path / "b", "-c", "docs", "--no-optimize")
    assert (code, found.get("live")) == (0, 301), found
    with vecdb.open(tmp_path / "b", read_only=True) as db:
        docs = db.collection("docs")
        got = {(record.owner, record.id): record for batch in docs.iter(include_vectors=True) for record in batch}
        assert (docs.metric, docs.config.index) == ("ip", vecdb.Curator())
    assert got.keys() == want.keys()
    for at, record in want.items():
        assert np.array_equal(record.vector, got[at].vector)
        assert (record.fields, record.tenants) == (got[at].fields, got[at].tenants)
