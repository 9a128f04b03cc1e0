"""Directories and files of others are named for what they are, by every command and without their packages; what a
foreign Qdrant directory says is not run.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import sqlite3
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_datasets import open_vectors
from vecdb_datasets.formats import optional

SQLITE = b"SQLite format 3\0"


def run(*words: object) -> tuple[int, Any]:
    """(exit code, document) of a command."""
    result = CommandRunner().run([*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def message(*words: object) -> str:
    code, found = run(*words)
    assert code == 1, found
    return str(found["error"]["message"])


def chroma_folder(path: Path) -> Path:
    """As much of a Chroma directory as names need."""
    path.mkdir()
    with sqlite3.connect(path / "chroma.sqlite3") as base:
        base.executescript("""
            CREATE TABLE collections (id, name, dimension, database_id);
            CREATE TABLE databases (id, name, tenant_id);
            CREATE TABLE segments (id, collection);
            CREATE TABLE embeddings (id, segment_id);
            CREATE TABLE embedding_metadata (id, key);
            INSERT INTO databases VALUES ('d', 'default_database', 'default_tenant');
            INSERT INTO collections VALUES ('c', 'docs', 3, 'd');
        """)
    base.close()
    return path


def lance_folder(path: Path) -> Path:
    (path / "_versions").mkdir(parents=True)
    (path / "data").mkdir()
    return path


def faiss_file(path: Path) -> Path:
    path.write_bytes(b"IxF2" + (16).to_bytes(4, "little") + (500).to_bytes(8, "little") + bytes(100))
    return path


def usearch_file(path: Path) -> Path:
    path.write_bytes(b"\x02\0\0\0\x08\0\0\0" + bytes(16) + b"usearch" + bytes(57))
    return path


def snapshot_file(path: Path) -> Path:
    shard = path.with_name("0") / "segments" / "x"
    shard.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_name("0"), "0")
    return path


MADE = {
    "a Chroma directory": (chroma_folder, "chromadb", "chroma"),
    "a Lance table": (lance_folder, "lance", "lance"),
    "a faiss index": (faiss_file, "faiss", "faiss"),
    "a snapshot of Qdrant": (snapshot_file, "qdrant_edge", "qdrant"),
    "a usearch index": (usearch_file, "usearch", "usearch"),
}


@pytest.mark.parametrize("what", MADE)
def test_it_is_named_where_its_package_is_missing_and_by_other_commands(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, module, extra = MADE[what]
    path = maker(tmp_path / "theirs")
    real = optional.importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    said = message("import", path, "--db", tmp_path / "db", "-c", "c")
    assert f"{path} is {what}: reading it needs {module}: pip install 'vecdb-engine[{extra}]'" in said
    assert not (tmp_path / "db").exists()
    for words in (("info",), ("search", "-c", "c", "--id", "1"), ("check",), ("import", path, "-c", "c")):
        said = message(words[0], *words[1:], "--db", path)
        if words[0] != "import":
            assert f"{path} is {what}, no vecdb database: `vecdb import {path} " in said


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    vecdb.open(tmp_path / "db").close()
    for name, content in {
        "chroma.sqlite3": SQLITE, "storage.sqlite": SQLITE, "other.db": SQLITE, "x.dump": b"PGDMP\x01\x0e",
        "x.bin": b"PGCOPY\n\xff\r\n\0", "x.pkl": pickle.dumps([1.0, 2.0]),
        "b.idx": b"IBxF\x10\0\0\0\2\0\0\0" + bytes(50),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content + bytes(200))
    (tmp_path / "0").mkdir()
    (tmp_path / "chain").mkdir()
    for name in ("index.faiss", "index.pkl"):
        (tmp_path / "chain" / name).touch()
    for name, said in {
        "db": "is a vecdb database: `vecdb export` writes a collection of it",
        "chroma.sqlite3": "is a file of a Chroma directory: name the directory that it lies in",
        "storage.sqlite": "is a file of Qdrant's local mode: name the directory in which meta.json lies",
        "other.db": "is an SQLite database",
        "x.dump": "is an archive of pg_dump: turn it into text with pg_restore",
        "x.bin": "is PostgreSQL's COPY in binary: write it as text or csv",
        "x.pkl": "is a Python pickle: vecdb reads none",
        "b.idx": "is a faiss index of bits",
        "chain": "is a folder that LangChain saved a faiss index in: name the file index.faiss",
        "0": "is a directory: name its files",
    }.items():
        assert f"{tmp_path / name} {said}" in message("import", tmp_path / name, "--db", tmp_path / "new", "-c", "c")
    assert not (tmp_path / "new").exists()


# -- Qdrant's local mode, without its package ------------------------------------------------------


class PointStruct:
    """As qdrant-client pickles it: the attributes within what pydantic keeps."""

    def __init__(self, id: Any, vector: Any, payload: Any) -> None:
        self.id, self.vector, self.payload = id, vector, payload

    def __getstate__(self) -> Any:
        return {"__dict__": self.__dict__, "__pydantic_extra__": None, "__pydantic_fields_set__": {"id", "vector"}}


def qdrant_folder(path: Path, points: list[Any], monkeypatch: pytest.MonkeyPatch, name: str = "docs") -> Path:
    home = types.ModuleType("qdrant_client.http.models.models")
    home.PointStruct = PointStruct  # type: ignore[attr-defined]
    for part in ("qdrant_client", "qdrant_client.http", "qdrant_client.http.models"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setattr(PointStruct, "__module__", home.__name__)
    (path / "collection" / "docs").mkdir(parents=True)
    vectors = {"size": 3, "distance": "Dot"}
    (path / "meta.json").write_text(json.dumps({"collections": {name: {"vectors": vectors}}, "aliases": {}}))
    with sqlite3.connect(path / "collection" / "docs" / "storage.sqlite") as base:
        base.execute("CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)")
        for at, point in enumerate(points):
            key = base64.b64encode(pickle.dumps(getattr(point, "id", at), 4)).decode()
            base.execute("INSERT INTO points VALUES (?, ?)", (key, pickle.dumps(point)))
    base.close()
    return path


def test_points_of_qdrant_are_read_without_it_in_order_and_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(1).normal(size=(2_500, 3))
    points = [PointStruct(i, v.tolist(), {"n": i, "d": {"l": [i, None]}}) for i, v in enumerate(vectors)]
    path = qdrant_folder(tmp_path / "q", points, monkeypatch)
    before = sorted((one, one.stat().st_mtime_ns) for one in path.rglob("*"))
    with open_vectors(path) as source:
        assert (source.shape, source.metric, source.format) == ((2_500, 3), "ip", "qdrant")
        assert np.allclose(source[1_000:2_100], vectors[1_000:2_100])
        assert source.ids(1_023, 1_026) == [1_023, 1_024, 1_025]
        assert source.fields(2_499, 2_500) == [{"n": 2_499, "d": {"l": [2_499, None]}}]
    with open_vectors(path, new_ids=True, columns=["id"]) as source:
        assert source.ids() is None and source.fields(7, 8) == [{"id": 7}]
    assert sorted((one, one.stat().st_mtime_ns) for one in path.rglob("*")) == before


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_what_a_foreign_qdrant_directory_says_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = PointStruct(2, [1.0, 2.0, 3.0], {"x": Harm(tmp_path / "made")})
    path = qdrant_folder(tmp_path / "q", [PointStruct(1, [1.0, 2.0, 3.0], {}), bad], monkeypatch)
    to = ("--db", tmp_path / "db", "-c", "c", "--no-optimize")
    assert "row 1: its point holds posix.mkdir, which is no plain value" in message("import", path, *to)
    code, found = run("import", path, *to, "--skip-bad")
    assert (code, found["live"], found["skipped"]) == (0, 1, 1)
    assert not (tmp_path / "made").exists()


def test_the_name_of_a_collection_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = qdrant_folder(tmp_path / "r", [], monkeypatch, name="../../elsewhere")
    assert "it leads elsewhere" in message("import", path, "--db", tmp_path / "db", "-c", "c")


def test_an_id_of_thousands_of_digits_is_a_wrong_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = [1.0, 2.0, 3.0]
    ids = [1, "0b0e2f9c-5a4a-4a29-9a8c-0c1d2e3f4a5b", 10**5_000]
    path = qdrant_folder(tmp_path / "q", [PointStruct(id, vector, {}) for id in ids], monkeypatch)
    to = ("--db", tmp_path / "db", "-c", "c", "--no-optimize")
    assert "row 2: its id is none" in message("import", path, *to)
    code, found = run("import", path, *to, "--skip-bad")
    assert (code, found["live"], found["skipped"]) == (0, 2, 1)


# -- what a snapshot and a Chroma directory hold, with packages that are made up -------------------


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("begin", ["", "0/"])
@pytest.mark.parametrize("wrong", ["link", "hard link", "absolute", "outside", "pipe", "absolute within"])
def test_a_snapshot_with_a_member_that_leads_out_is_damage(
    begin: str, wrong: str, inner: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_edge", types.ModuleType("qdrant_edge"))
    path = bad = tmp_path / "x.snapshot"
    if inner:
        bad = tmp_path / "y.tar"
    with tarfile.open(bad, "w") as archive:
        for name in (f"{begin}segments/x", f"{begin}segments/x/a.bin"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        member = tarfile.TarInfo(f"{begin}segments/y")
        if wrong == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        elif wrong == "hard link":
            member.type, member.linkname = tarfile.LNKTYPE, "../../x"
        elif wrong == "pipe":
            member.type = tarfile.FIFOTYPE
        elif wrong == "absolute":
            member.name = "/tmp/segments/x"
        elif wrong == "outside":
            member.name = f"{begin}segments/../../../x"
        else:
            member.name = f"/{begin}segments/x"
        archive.addfile(member)
    if inner:
        with tarfile.open(path, "w") as archive:
            archive.add(bad, f"{begin}segments/y.tar")
    with pytest.raises(vecdb.Corruption, match="is a link, or leads out of it"):
        open_vectors(path)


class ChromaClient:
    """As much of chromadb as opening needs."""

    closed = 0
    metadata = None
    configuration: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def get_collection(self, name: str, embedding_function: Any) -> Any:
        return self

    def count(self) -> int:
        return 0

    def close(self) -> None:
        ChromaClient.closed += 1


def fake_chroma(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package, config = types.ModuleType("chromadb"), types.ModuleType("chromadb.config")
    package.PersistentClient, config.Settings = ChromaClient, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chromadb", package)
    monkeypatch.setitem(sys.modules, "chromadb.config", config)
    monkeypatch.setattr(ChromaClient, "closed", 0)
    folder = chroma_folder(path)
    with sqlite3.connect(folder / "chroma.sqlite3") as base:
        base.executescript("""
            CREATE TABLE max_seq_id (segment_id, seq_id);
            INSERT INTO segments VALUES ('s', 'c'), ('t', 'c');
            INSERT INTO max_seq_id VALUES ('s', 99), ('t', 99);
        """)
    base.close()
    return folder


def test_chroma_is_closed_where_an_error_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_chroma(tmp_path / "c", monkeypatch)
    with pytest.raises(vecdb.VecdbError, match="nothing"):
        open_vectors(path, columns=["nothing"])
    assert ChromaClient.closed == 1


def test_the_stamp_of_chroma_tells_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_chroma(tmp_path / "c", monkeypatch)
    stamps = []
    for written in ("seq_id = seq_id", "seq_id = 100 WHERE segment_id = 's'", "seq_id = 101 WHERE segment_id = 't'"):
        with sqlite3.connect(path / "chroma.sqlite3") as base:
            base.execute(f"UPDATE max_seq_id SET {written}")
        base.close()
        with open_vectors(path) as source:
            stamps.append(json.dumps(source.stamp))
    assert len(set(stamps)) == 3
