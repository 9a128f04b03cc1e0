"""The `vecdb` command: every family as a user would run it, in a process of its own where exit codes matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from tests.support.server.driver import token
from tests.support.server.process import Process

ROOT = Path(__file__).resolve().parents[2]
ROWS, DIM = 300, 8


def run(*words: object, code: int = 0) -> Any:
    """Run a command with --json in this process; its document."""
    result = CommandRunner().run([str(word) for word in words] + ["--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def show(*words: object) -> str:
    """Run a command for people; what it prints."""
    result = CommandRunner().run([str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def process(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), *(str(ROOT / name) for name in ("datasets", "bench", "server"))]
    return subprocess.run(
        [sys.executable, "-m", "vecdb", *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(ROWS, DIM)).astype(np.float32)


@pytest.fixture
def matrix(tmp_path: Path, vectors: np.ndarray) -> Path:
    np.save(tmp_path / "x.npy", vectors)
    return tmp_path / "x.npy"


@pytest.fixture
def db(tmp_path: Path, matrix: Path) -> Path:
    """A database with the collection `docs`, imported."""
    run("import", matrix, "--db", tmp_path / "db", "-c", "docs", "--metric", "l2")
    return tmp_path / "db"


def test_an_import_holds_every_row_of_the_file(db: Path, vectors: np.ndarray) -> None:
    with vecdb.open(db) as database:
        docs = database.collection("docs")
        assert (docs.count(), docs.metric, docs.dtype) == (ROWS, "l2", "float32")
        stored = np.stack([record.vector for record in docs.get(list(range(ROWS)), include_vectors=True)])
        assert np.array_equal(stored, vectors)


def test_an_interrupted_import_goes_on_where_it_was(
    tmp_path: Path, matrix: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb.cli.commands import import_export

    monkeypatch.setattr(import_export, "batch_bytes", 100 * vectors[:1].nbytes)  # three batches
    plain, calls = vecdb.Collection.upsert, []

    def failing(self: vecdb.Collection, ids: Any, *args: Any, **options: Any) -> int:
        calls.append(int(ids[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, ids, *args, **options)

    monkeypatch.setattr(vecdb.Collection, "upsert", failing)
    words = ("import", matrix, "--db", tmp_path / "db", "-c", "docs")
    assert run(*words, code=130)["error"]["code"] == "INTERRUPTED"
    assert calls == [0, 100, 200]
    assert run(*words)["resumed_at"] == 200
    assert calls == [0, 100, 200, 200]
    assert not list(tmp_path.glob("db.import-*"))
    with vecdb.open(tmp_path / "db", read_only=True) as database:
        assert database.collection("docs").count() == ROWS


def test_a_file_is_imported_into_posting_lists(tmp_path: Path) -> None:
    """More rows than the exact beginnings, with codes left on disk."""
    rng = np.random.default_rng(3)
    np.save(tmp_path / "x.npy", rng.integers(0, 255, (5_000, 32)).astype(np.uint8))
    words = ("--index", "spann", "--bits", 4, "--codes-bytes", 0)
    done = run("import", tmp_path / "x.npy", "--db", tmp_path / "db", "-c", "docs", *words)
    assert done["live"] == 5_000
    with vecdb.open(tmp_path / "db", read_only=True) as database:
        docs = database.collection("docs")
        assert docs.config.index == vecdb.Spann(bits=4, memory_budget_bytes=0)
        assert docs.stats()["index_stats"]["lists_in_memory"] == 0
        found = docs.search(docs.get([7], include_vectors=True)[0].vector, limit=1, explain=True)
        assert found.ids[0] == 7 and found.explain["plan"] == "lists" and found.explain["reads"] > 1


def test_a_file_is_imported_for_many_tenants(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(4).integers(0, 255, (3_000, 16)).astype(np.uint8))
    done = run("import", tmp_path / "x.npy", "--db", tmp_path / "db", "-c", "docs", "--index", "curator")
    assert done["live"] == 3_000
    with vecdb.open(tmp_path / "db", read_only=True) as database:
        docs = database.collection("docs")
        assert docs.config.index == vecdb.Curator()
        assert docs.search(docs.get([7], include_vectors=True)[0].vector, limit=1).ids[0] == 7


def test_a_changed_file_is_imported_from_the_start(tmp_path: Path, matrix: Path, vectors: np.ndarray) -> None:
    from vecdb.cli.commands.import_export import ImportCheckpoint

    run("import", matrix, "--db", tmp_path / "db", "-c", "docs")
    ImportCheckpoint(str(tmp_path / "db"), "docs", matrix, [None, None, None]).write(200, 199)
    np.save(matrix, np.concatenate([vectors, vectors + 1]))
    assert run("import", matrix, "--db", tmp_path / "db", "-c", "docs") | {"seconds": 0} == {
        "collection": "docs",
        "rows": 2 * ROWS,
        "resumed_at": 0,
        "live": 2 * ROWS,
        "seconds": 0,
    }


def test_tables_bring_their_ids_and_fields(tmp_path: Path, vectors: np.ndarray) -> None:
    with (tmp_path / "x.jsonl").open("w", encoding="utf-8") as file:
        for at in range(20):
            file.write(json.dumps({"id": f"w{at}", "vector": vectors[at].tolist(), "year": 2000 + at}) + "\n")
    run("import", tmp_path / "x.jsonl", "--db", tmp_path / "db", "-c", "texts", "--limit", 15)
    with vecdb.open(tmp_path / "db", read_only=True) as database:
        texts = database.collection("texts")
        assert texts.count() == 15
        assert texts.get(["w3"])[0].fields == {"year": 2003}


def test_import_refuses_what_disagrees_with_the_collection(db: Path, matrix: Path, tmp_path: Path) -> None:
    assert "metric" in run("import", matrix, "--db", db, "-c", "docs", "--metric", "ip", code=1)["error"]["message"]
    np.save(tmp_path / "wide.npy", np.ones((2, DIM + 1), np.float32))
    assert "dim" in run("import", tmp_path / "wide.npy", "--db", db, "-c", "docs", code=1)["error"]["message"]
    assert run("import", tmp_path / "none.npy", "--db", db, "-c", "docs", code=1)["error"]["code"] == "NOT_FOUND"


def test_an_import_gives_a_collection_without_one_its_dim(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as database:
        database.create_collection("new")
    assert run("export", "--db", tmp_path / "db", "-c", "new", tmp_path / "none.jsonl")["rows"] == 0
    np.save(tmp_path / "five.npy", np.ones((3, 5), np.float32))
    run("import", tmp_path / "five.npy", "--db", tmp_path / "db", "-c", "new")
    with vecdb.open(tmp_path / "db") as database:
        assert (database["new"].dim, database["new"].count()) == (5, 3)


@pytest.mark.parametrize("suffix", ["npy", "fbin", "jsonl", "csv"])
def test_what_is_exported_can_be_imported_again(db: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    assert run("export", "--db", db, "-c", "docs", out)["rows"] == ROWS
    run("import", out, "--db", tmp_path / "again", "-c", "docs", "--metric", "l2")
    with vecdb.open(db) as first, vecdb.open(tmp_path / "again") as second:
        ids = list(range(ROWS))
        before = first.collection("docs").get(ids, include_vectors=True)
        after = second.collection("docs").get(ids, include_vectors=True)
        assert all(np.allclose(a.vector, b.vector, rtol=1e-6) for a, b in zip(before, after, strict=True))
    if suffix in ("npy", "fbin"):
        assert [json.loads(line) for line in (tmp_path / f"out.{suffix}.ids.jsonl").open()] == ids


def test_search_near_a_record_leaves_it_out(db: Path, vectors: np.ndarray) -> None:
    found = run("search", "--db", db, "-c", "docs", "--id", 5, "-k", 4, "--exact")["hits"]
    order = np.argsort(((vectors - vectors[5]) ** 2).sum(1))[1:5]
    assert [hit["id"] for hit in found] == order.tolist()
    assert [hit["distance"] for hit in found] == sorted(hit["distance"] for hit in found)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twenty records: n, lang (three of them), tags."""
    with vecdb.open(tmp_path / "db") as database:
        docs = database.create_collection("texts", 2, "l2")
        rows = [{"n": n, "lang": ("en", "fr", "de")[n % 3], "tags": ["a", "b"][: n % 3]} for n in range(20)]
        docs.upsert(range(20), [[n, 0] for n in range(20)], rows, tenants=[["t"] if n < 4 else [] for n in range(20)])
    return tmp_path / "db"


def test_searches_and_exports_take_a_filter(texts: Path, tmp_path: Path) -> None:
    where = ("--db", texts, "-c", "texts", "--filter", "lang = 'en' and n >= 3")
    found = run("search", *where, "--vector", "0,0", "--limit", 3, "--explain")
    assert [hit["id"] for hit in found["hits"]] == [3, 6, 9] and found["explain"]["matching"] == 6
    assert run("export", tmp_path / "out.jsonl", *where)["rows"] == 6
    run("import", tmp_path / "out.jsonl", "--db", tmp_path / "other", "-c", "texts")
    with vecdb.open(tmp_path / "other") as database:
        assert [one.fields["n"] for one in database["texts"].get(limit=99)] == [3, 6, 9, 12, 15, 18]
    failed = run("search", "--db", texts, "-c", "texts", "--vector", "0,0", "--filter", "n >", code=1)
    assert failed["error"]["code"] == "INVALID_ARGUMENT"


def test_fields_and_facets_are_shown(texts: Path) -> None:
    where = ("--db", texts, "-c", "texts")
    assert run("fields", *where)["lang"] == {"types": ["str"], "count": 20}
    assert "tags" in show("fields", *where, "--tenant", "t") and "list" in show("fields", *where)
    assert run("facets", "lang", *where, "--limit", 2)["values"] == [
        {"value": "en", "count": 7}, {"value": "fr", "count": 7},
    ]  # fmt: skip
    assert run("facets", "tags", *where, "--filter", "n < 6")["values"] == [
        {"value": "a", "count": 4}, {"value": "b", "count": 2},
    ]  # fmt: skip
    assert "fr" in show("facets", "lang", *where, "--tenant", "t")


def test_search_near_a_vector_and_explained(db: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    numbers = ",".join(map(str, vectors[9].tolist()))
    found = run("search", "--db", db, "-c", "docs", "--vector", numbers, "--explain")
    assert found["hits"][0]["id"] == 9
    assert found["explain"]["plan"]
    np.save(tmp_path / "q.npy", vectors[9])
    assert run("search", "--db", db, "-c", "docs", "--vector", f"@{tmp_path / 'q.npy'}")["hits"] == found["hits"]


def test_looking_at_a_database(db: Path) -> None:
    (line,) = run("ls", "--db", db)
    assert (line["name"], line["dim"], line["live"]) == ("docs", DIM, ROWS)
    assert run("info", "--db", db)["collections"]["docs"]["live"] == ROWS
    assert run("check", "--db", db) == {"ok": True, "problems": []}
    assert "docs" in show("ls", "--db", db)
    assert "all is well" in show("check", "--db", db)


@pytest.mark.parametrize("ids", [["3", "7"], ["03", "-7"]], ids=["ints", "strings"])
def test_tenants_are_made_shown_and_granted_what_is_there(tmp_path: Path, vectors: np.ndarray, ids: list[str]) -> None:
    first, second = (int(one) if ids == ["3", "7"] else one for one in ids)
    with vecdb.open(tmp_path / "db") as database:
        docs = database.create_collection("docs", DIM, "l2")
        docs.upsert([first, second], vectors[:2])
    to = ("--db", tmp_path / "db", "-c", "docs")
    assert run("tenant", "create", "beta", "acme", *to, "--records-max", 5) == {"created": 2}
    assert run("tenant", "create", "acme", *to, code=1)["error"]["code"] == "ALREADY_EXISTS"
    assert run("tenant", "create", "acme", *to, "--exist-ok") == {"created": 0}
    assert run("tenant", "grant", "acme", "gamma", *to, "--id", ids[0], "--id", ids[1]) == {"granted": 4}
    assert run("tenant", "revoke", "acme", *to, "--id", ids[1]) == {"revoked": 1}
    assert (
        run("tenant", "grant", "acme", *to, "--id", ids[0], "--owner", "other", code=1)["error"]["code"] == "NOT_FOUND"
    )
    expected = [{"name": "acme", "records": 1}, {"name": "beta", "records": 0}, {"name": "gamma", "records": 2}]
    assert run("tenant", "list", *to) == expected and "gamma" in show("tenant", "list", *to)
    assert run("tenant", "list", *to, "--after", "b", "-k", 1) == expected[1:2]
    assert run("tenant", "info", "acme", *to)["records_max"] == 5
    assert run("tenant", "drop", "beta", *to) == {"dropped": "beta"}
    assert run("tenant", "create", "eta", *to) == {"created": 1}
    assert run("tenant", "drop", "eta", *to, "--records") == {"dropped": "eta", "deleted": 0}
    assert run("tenant", "info", "beta", *to, code=1)["error"]["code"] == "NOT_FOUND"
    found = run("search", *to, "--vector", f"@{_one(tmp_path, vectors[1])}", "--tenant", "acme")
    assert [hit["id"] for hit in found["hits"]] == [first]
    found = run("search", *to, "--id", ids[0], "--tenant", "acme", "--tenant", "gamma")
    assert [hit["id"] for hit in found["hits"]] == [second]
    assert run("search", *to, "--id", ids[1], "--tenant", "acme", code=1)["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_access_lists_survive_an_export_and_an_import(db: Path, tmp_path: Path, suffix: str) -> None:
    with vecdb.open(db) as database:
        docs = database.collection("docs")
        docs.grant(range(200), "acme")
        docs.grant([5, 299], {"acme", "beta"})
    out = tmp_path / f"out.{suffix}"
    run("export", out, "--db", db, "-c", "docs", "--tenant-column", "seen by")
    run("import", out, "--db", tmp_path / "two", "-c", "docs", "--metric", "l2", "--tenant-column", "seen by")
    with vecdb.open(tmp_path / "two") as database:
        docs = database.collection("docs")
        assert docs.count() == ROWS and docs.count(tenant="acme") == 201 and docs.count(tenant="beta") == 2
        assert docs.get(5).tenants == ["acme", "beta"] and docs.get(5).fields == {} and docs.get(250).tenants == []
    run("export", tmp_path / f"beta.{suffix}", "--db", db, "-c", "docs", "--tenant", "beta")
    run(
        "import",
        tmp_path / f"beta.{suffix}",
        "--db",
        tmp_path / "three",
        "-c",
        "docs",
        "--tenant",
        "b",
        "--tenant",
        "c",
    )
    with vecdb.open(tmp_path / "three") as database:
        assert [one.tenants for one in database.collection("docs").get([5, 299])] == [["b", "c"]] * 2
    for words, said in (
        (("export", tmp_path / "out.csv", "--db", db, "-c", "docs", "--tenant-column", "t"), "write jsonl or parquet"),
        (("export", tmp_path / "out.npy", "--db", db, "-c", "docs", "--tenant-column", "t"), "write jsonl or parquet"),
        (("import", out, "--db", db, "-c", "docs", "--tenant-column", "t"), "no column 't' of tenants"),
        (("import", tmp_path / "x.npy", "--db", db, "-c", "docs", "--tenant-column", "t"), "no column 't' of tenants"),
    ):
        assert said in run(*words, code=1)["error"]["message"]
    for more in (("--tenant-column", "t"), ("--hnswlib",)):
        done = process("import", out, "--db", db, "-c", "docs", "--tenant", "a", *more, "--json", cwd=tmp_path)
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "USAGE")


def test_what_only_late_records_have_is_exported_too(tmp_path: Path) -> None:
    n = 4_096 + 3  # the first records of an export are written together
    with vecdb.open(tmp_path / "db") as database:
        docs = database.create_collection("docs", 2, "l2")
        docs.upsert(range(n), np.ones((n, 2)))
        docs.upsert([n], [[1, 2]], [{"title": "t"}], tenants=["acme"])
        docs.upsert([n + 1], [[1, 2]], [{"seen by": "t"}])
    run("export", tmp_path / "out.parquet", "--db", tmp_path / "db", "-c", "docs", "--tenant-column", "seers")
    run("import", tmp_path / "out.parquet", "--db", tmp_path / "two", "-c", "docs", "--tenant-column", "seers")
    with vecdb.open(tmp_path / "two") as database:
        first, last = database.collection("docs").get([0, n])
        assert (last.fields["title"], last.tenants, first.tenants) == ("t", ["acme"], [])
    words = ("export", tmp_path / "x.jsonl", "--db", tmp_path / "db", "-c", "docs", "--tenant-column", "seen by")
    assert "is the name of a field" in run(*words, code=1)["error"]["message"]
    assert not (tmp_path / "x.jsonl").exists()


def test_a_cell_of_a_table_is_a_tenant(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('id,vector,org\n1,"[0.5, 1]",acme\n2,"[1, 0.5]",\n')
    run("import", tmp_path / "x.csv", "--db", tmp_path / "db", "-c", "docs", "--tenant-column", "org")
    with vecdb.open(tmp_path / "db") as database:
        assert [one.tenants for one in database.collection("docs").get([1, 2])] == [["acme"], []]


def test_check_fails_when_there_are_problems(db: Path) -> None:
    rows = next((db / "collections").glob("*/rows.*"))
    with rows.open("r+b") as file:
        file.seek(4096 + 5 * 4 * DIM)
        file.write(b"\xff\x00\xff")
    assert run("check", "--db", db, code=1)["problems"]


def test_backup_restore_and_vacuum(db: Path, tmp_path: Path) -> None:
    assert run("backup", tmp_path / "copy", "--db", db)["bytes"] > 0
    run("restore", tmp_path / "copy", tmp_path / "restored")
    assert run("ls", "--db", tmp_path / "restored")[0]["live"] == ROWS
    assert set(run("vacuum", "--db", db)) == {"bytes_before", "bytes_after"}
    assert run("upgrade", "--db", db) == {"upgraded": False}


def test_backups_in_a_bucket(db: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    assert run("backups", url) == []
    assert set(run("backup", url, "--db", db)) == {"destination", "seconds"}
    with vecdb.open(db) as database:
        database.collection("docs").delete(0)
    run("backup", url, "--db", db, "--keep", 2)
    first, second = run("backups", url)
    assert first["sequence"] < second["sequence"] and first["time"] < second["time"]
    assert first["bytes"] > 0 and first["database"] == second["database"]
    assert [(one["sequence"], one["time"].isoformat()) for one in vecdb.backups(url)] == [
        (one["sequence"], one["time"]) for one in (first, second)
    ]
    with pytest.raises(vecdb.InvalidArgument, match="by a URL"):
        vecdb.backups(tmp_path)
    for name, live, at in (
        ("newest", ROWS - 1, ()),
        ("commit", ROWS, ("--at", second["sequence"] - 1)),
        ("time", ROWS, ("--at", first["time"])),
        ("local", ROWS - 1, ("--at", "2199-01-01T00:00:00")),
    ):
        run("restore", url, tmp_path / name, *at)
        assert run("ls", "--db", tmp_path / name)[0]["live"] == live
    for at in ("yesterday", "0", "1999-01-01"):
        run("restore", url, tmp_path / "none", "--at", at, code=1)
    assert not (tmp_path / "none").exists()


def test_tune_returns_the_curve(db: Path) -> None:
    curve = run("tune", "--db", db, "-c", "docs", "--recall", 0.9)
    assert isinstance(curve, list)


def test_data_sets(tmp_path: Path) -> None:
    assert "glove-50" in [line["name"] for line in run("dataset", "list")]
    assert run("dataset", "info", "clustered-500x4")["rows"] == 500
    run("dataset", "export", "clustered-500x4", "--format", "fbin", "--out", tmp_path / "c.fbin")
    run("import", tmp_path / "c.fbin", "--db", tmp_path / "db", "-c", "c")
    assert run("dataset", "info", "no-such-set", code=1)["error"]["code"] == "NOT_FOUND"


def test_errors_are_a_message_and_a_code(tmp_path: Path) -> None:
    done = process("ls", "--db", "none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "none" in done.stderr and "Traceback" not in done.stderr
    done = process("ls", "--db", "none", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "NOT_FOUND"
    assert not (tmp_path / "none").exists()


def test_wrong_usage_exits_with_two(tmp_path: Path) -> None:
    assert process("search", "--db", "none", cwd=tmp_path).returncode == 2
    done = process("search", "-c", "docs", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "USAGE"


def test_without_the_extra_the_message_names_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['typer'] = None; from vecdb.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "vecdb-engine[cli]" in done.stderr


def test_progress_is_silent_where_there_is_no_terminal(matrix: Path, tmp_path: Path) -> None:
    done = process("import", matrix, "--db", "db", "-c", "docs", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


# -- a server's database ---------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """(address, token of its administrator)"""
    secret, tokens = token(tmp_path / "tokens.json", "admin", "admin"), str(tmp_path / "tokens.json")
    with Process(tmp_path / "far", tmp_path, "--tokens", tokens, "--backups", str(tmp_path / "backups")) as server:
        yield f"grpc://{server.address}", secret


def test_a_servers_database_is_used_as_one_in_a_directory(
    served: tuple[str, str], matrix: Path, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, secret = served
    assert run("import", matrix, "--db", url, "--token", secret, "-c", "docs", "--metric", "l2")["live"] == ROWS
    assert [path.name for path in tmp_path.iterdir() if "import" in path.name] == [], "the note is gone"
    monkeypatch.setenv("VECDB_TOKEN", secret)
    monkeypatch.setenv("VECDB_DB", url)
    assert run("info")["collections"]["docs"]["live"] == ROWS and run("ls")[0]["name"] == "docs"
    found = run("search", "-c", "docs", "--vector", f"@{_one(tmp_path, vectors[7])}")
    assert found["hits"][0]["id"] == 7
    assert run("search", "-c", "docs", "--id", 3, "-k", 2, "--explain")["explain"]["plan"] == "exact"
    run("export", tmp_path / "out.npy", "-c", "docs")
    assert np.array_equal(np.load(tmp_path / "out.npy"), vectors)
    assert run("check") == {"ok": True, "problems": []}
    assert run("tune", "-c", "docs") == [], "so few are looked at one by one"
    assert run("vacuum")["bytes_after"] > 0
    assert run("backup", "copy")["destination"] == "copy" and (tmp_path / "backups" / "copy").is_dir()


def _one(folder: Path, vector: np.ndarray) -> Path:
    np.save(folder / "one.npy", vector)
    return folder / "one.npy"


def test_what_a_server_cannot_do_is_said(served: tuple[str, str], matrix: Path) -> None:
    url, secret = served
    for words in (("warmup",), ("import", matrix, "-c", "docs", "--metric", "l2", "--hnswlib")):
        error = run(*words, "--db", url, code=1)["error"]
        assert error["code"] == "INVALID_ARGUMENT" and "is a server" in error["message"]
    assert run("ls", "--db", url, code=1)["error"]["code"] == "PERMISSION_DENIED"
    assert run("ls", "--db", url, "--token", secret, "--tls", "none.pem", code=1)["error"]["code"] == "NOT_FOUND"
    assert run("ls", "--db", "grpc://h/x", code=1)["error"]["code"] == "INVALID_ARGUMENT"


def test_collections_are_renamed_and_have_aliases(tmp_path: Path) -> None:
    db = tmp_path / "db"
    with vecdb.open(db) as database:
        database.create_collection("v1", DIM), database.create_collection("v2", DIM)
    assert run("rename", "v1", "first", "--db", db) == {"renamed": "v1", "name": "first"}
    for target in ("first", "v2"):
        assert run("alias", "set", "docs", target, "--db", db) == {"alias": "docs", "collection": target}
        assert run("alias", "list", "--db", db) == [{"alias": "docs", "collection": target}]
    assert run("alias", "drop", "docs", "--db", db) == {"dropped": "docs"}
    assert run("alias", "drop", "docs", "--db", db, code=1)["error"]["code"] == "NOT_FOUND"


def test_a_search_shows_whose_records_it_finds(tmp_path: Path, vectors: np.ndarray) -> None:
    to = ("--db", tmp_path / "db", "-c", "docs")
    with vecdb.open(tmp_path / "db") as database:
        docs = database.create_collection("docs", DIM, "l2")
        docs.upsert([1, 2], vectors[:2])
        assert "owner" not in run("search", *to, "--id", 1)["hits"][0]
        docs.upsert([1], vectors[2:3], owner="acme")
    hits = run("search", *to, "--id", 1)["hits"]
    assert {(hit["id"], hit["owner"]) for hit in hits} == {(2, ""), (1, "acme")}, "the other record 1 is a neighbour"
    assert "acme" in show("search", *to, "--id", 1)


def test_an_error_in_a_filter_shows_where_it_is(texts: Path) -> None:
    failed = process(
        "search", "--db", texts, "-c", "texts", "--vector", "0,0", "--filter", "n >= 3 ant n < 9", cwd=texts
    )
    assert failed.returncode == 1 and not failed.stdout
    said, shown, caret = failed.stderr.rstrip().split("\n")
    assert said.startswith("error the filter is wrong at line 1, column 8:")
    assert shown[caret.index("^") :] == "ant n < 9"
    dotted = process("facets", "tags", "--db", texts, "-c", "texts", "--filter", "a = 'x\x1b'\nor b >", cwd=texts)
    assert "line 2, column 7" in dotted.stderr and "\x1b" not in dotted.stderr


def test_records_without_vectors(tmp_path: Path) -> None:
    db = tmp_path / "db"
    with vecdb.open(db) as database:
        docs = database.create_collection("mixed", dim=2, metadata={"by": "us"})
        docs.upsert(["a", "b"], [[1.0, 2.0], None], [{"n": 1}, {"n": 2}])
    where = ("--db", db, "-c", "mixed")
    assert run("search", *where, "--id", "b", code=1)["error"]["message"].startswith("record 'b' of collection")
    assert run("facets", "n", *where)["values"] == [{"value": 1, "count": 1}, {"value": 2, "count": 1}]
    assert run("search", *where, "--vector", "1,2")
    assert run("tune", *where) == [] and run("check", "--db", db)["ok"]
    for name in ("out.parquet", "out.jsonl"):
        assert run("export", tmp_path / name, *where)["rows"] == 2
        run("import", tmp_path / name, "--db", db, "-c", f"from {name}", "--no-optimize")
        with vecdb.open(db) as database:
            docs = database.collection(f"from {name}")
            assert docs.get("b", include_vectors=True).vector is None and docs.count() == 2
            assert docs.metadata == {"by": "us"}
    failed = run("export", tmp_path / "out.npy", *where, code=1)["error"]["message"]
    assert "records without a vector (record 'b')" in failed and not (tmp_path / "out.npy").exists()
    assert run("export", tmp_path / "out.npy", *where, "--lossy")["losses"] == ["records without a vector"]
