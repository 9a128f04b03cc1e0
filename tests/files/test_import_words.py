"""What `import` says when something is wrong: file, row and line, the options of the command; and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb.cli.commands import import_export

X = [0.1 * i + 0.01 for i in range(16)]


def run(*words: object, input: bytes | None = None) -> tuple[int, Any]:
    """(exit code, document) of a command."""
    result = CommandRunner().run([*map(str, words), "--json"], input=input)
    return result.exit_code, json.loads(result.stdout)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "int past 64 bits": ({"big": 2**70}, "field 'big': ints must fit in 64 bits"),
    "deep int": ({"deep": {"a": 2**70}}, "field 'deep': ints must fit"),
    "id of the other kind": ({"id": "a"}, "its id 'a' is text"),
    "zero vector": ({"embedding": [0.0] * 16}, "its vector is zero"),
    "NaN": ({"embedding": [float("nan"), *X[1:]]}, "component 0 is nan: expected a finite number"),
    "null": ({"embedding": None}, "vector is NoneType"),
    "short": ({"embedding": [1.0]}, "has dim 1, expected 16"),
    "no id": ({"id": None}, "has no id 'id'"),
    "long id": ({"id": 2**64}, "its id"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_file_line_and_row_or_skipped(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, said = BAD[name]
    monkeypatch.setattr(import_export, "batch_bytes", 100 * 16 * 4)
    rows = [{"id": i, "embedding": X, "t": 1} | (change if i == 150 else {}) for i in range(250)]
    file = lines(tmp_path / "x.jsonl", rows)
    to = ("--db", tmp_path / "db", "-c", "c", "--no-optimize")
    code, found = run("import", file, *to)
    assert code == 1
    message = found["error"]["message"]
    assert f"{file}: line 151: row 150" in message and said in message
    assert "[50]" not in message and "=" not in message, "neither places in a batch nor Python's arguments"
    code, found = run("import", file, *to, "--skip-bad", "--bad-rows", tmp_path / "bad.jsonl")
    assert (code, found["live"], found["skipped"]) == (0, 249, 1) and "line 151: row 150" in found["bad"][0]
    assert json.loads((tmp_path / "bad.jsonl").read_text())["error"] == found["bad"][0]
    assert "=" not in found["bad"][0] and "--skip-bad" not in found["bad"][0]


def test_an_import_that_fails_at_its_beginning_leaves_nothing(tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl", [{"id": 1, "embedding": [1, 0.5]}, {"id": 2, "embedding": [0, 0]}])
    to = ("--db", tmp_path / "db", "-c", "c", "--no-optimize")
    assert run("import", file, *to)[0] == 1 and not (tmp_path / "db").exists()
    vecdb.open(tmp_path / "db").close()
    assert run("import", file, *to)[0] == 1
    assert run("import", file, *to, "--metric", "l2")[0] == 0, "as the message advised"
    assert run("import", file, *to, "--metric", "cosine")[0] == 1


def test_messages_name_the_options_of_the_command(tmp_path: Path) -> None:
    both = lines(tmp_path / "both.jsonl", [{"id": 1, "a": [1.0, 2], "b": [2.0, 1]}])
    (tmp_path / "noise").write_bytes(np.random.default_rng(1).bytes(1001))
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    to = ("--db", tmp_path / "db", "-c", "c")
    for words, said in (
        ((both,), "say which with --vector-column"),
        ((both, "--vector-column", "nope"), "no column 'nope'"),
        ((tmp_path / "noise",), "say which with --format. If hnswlib saved it, give --hnswlib"),
        ((tmp_path / "x.npy", "--key", "a"), "--key 'a' is for HDF5"),
        ((tmp_path / "x.npy", "--id-column", "a"), "--id-column are for tables"),
        ((tmp_path,), "is a directory: name its files"),
        ((tmp_path / "*.nope",), "no file matches"),
        ((tmp_path / "x.npy", tmp_path / "none"), "no such file"),
    ):
        code, found = run("import", *words, *to)
        assert code == 1 and said in found["error"]["message"], found
    assert not (tmp_path / "db").exists()
    for words, said in (
        ((both, "--m", 8), "--m goes with --index hnsw"),
        ((both, "--index", "hnsw", "--bits", 4), "--bits goes with --index spann"),
        ((tmp_path / "x.npy", "--hnswlib", "--metric", "l2", "--dtype", "float16"), "leave out --dtype"),
        ((both, "--dim", 3), "--dim goes with --hnswlib"),
        ((both, "--bad-rows", "x"), "--bad-rows goes with --skip-bad"),
        ((both, "--limit", 0), "--limit"),
    ):
        result = CommandRunner().run([str(word) for word in ("import", *words, *to)])
        assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output


def test_ids_go_on_after_those_that_are_there(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    for at in range(3):
        np.save(tmp_path / f"part-{at}.npy", vectors[20 * at : 20 * at + 20])
    to = ("--db", tmp_path / "db", "-c", "c", "--no-optimize")
    for at in range(3):
        code, found = run("import", tmp_path / f"part-{at}.npy", *to)
        assert (code, found["live"], found.get("first_id", 0)) == (0, 20 * at + 20, 20 * at)
    with vecdb.open(tmp_path / "db") as database:
        docs = database.collection("c")
        assert np.array_equal([one.vector for one in docs.get(range(60), include_vectors=True)], vectors)
        docs.delete(range(10))
        docs.upsert([1000], vectors[:1])
    assert run("import", tmp_path / "part-0.npy", *to)[1]["first_id"] == 1001
    code, found = run("import", tmp_path / "part-*.npy", "--db", tmp_path / "two", "-c", "c", "--no-optimize")
    assert (code, found["rows"], found["live"]) == (0, 60, 60)
    with vecdb.open(tmp_path / "two") as database:
        got = database.collection("c").get(range(60), include_vectors=True)
        assert np.array_equal([one.vector for one in got], vectors)
        database.create_collection("s", 4).upsert(["a"], vectors[:1])
    code, found = run("import", tmp_path / "part-0.npy", "--db", tmp_path / "two", "-c", "s")
    assert code == 1 and "those of collection 's' are strings" in found["error"]["message"]


def test_an_interrupted_import_without_ids_goes_on_under_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32))
    monkeypatch.setattr(import_export, "batch_bytes", 10 * 16)
    to = ("--db", tmp_path / "db", "-c", "c", "--no-optimize")
    with vecdb.open(tmp_path / "db") as database:
        database.create_collection("c", 4).upsert(range(7), np.ones((7, 4)))
    plain = vecdb.Collection.upsert
    for dies_after in (True, False):  # before or after a batch was written, but never noted
        calls: list[int] = []

        def failing(self: Any, ids: Any, *args: Any, calls: Any = calls, late: bool = dies_after, **more: Any) -> int:
            calls.append(int(ids[0]))
            if len(calls) == 2 and not late:
                raise KeyboardInterrupt
            done = plain(self, ids, *args, **more)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return done

        with monkeypatch.context() as patch:
            patch.setattr(vecdb.Collection, "upsert", failing)
            assert run("import", tmp_path / "x.npy", *to)[0] == 130
    code, found = run("import", tmp_path / "x.npy", *to)
    assert (code, found["live"], found["first_id"]) == (0, 37, 7)


def test_rows_that_replace_others_are_told(tmp_path: Path) -> None:
    rows = [{"id": i % 3, "v": [1.0, i]} for i in range(5)]
    code, found = run("import", lines(tmp_path / "x.jsonl", rows), "--db", tmp_path / "db", "-c", "c")
    assert (code, found["live"], found["replaced"]) == (0, 3, 2)


def test_metric_and_dtype_are_those_of_the_file(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as database:
        database.create_collection("c", 2, "ip", dtype="float16").upsert([1], [[1, 2]])
        database.create_collection("cosine", 2)
    out = tmp_path / "x.jsonl"
    assert run("export", out, "--db", tmp_path / "db", "-c", "c")[0] == 0
    code, found = run("import", out, "--db", tmp_path / "db", "-c", "cosine")
    assert code == 1 and "says ip: give --metric cosine to import into it all the same" in found["error"]["message"]
    assert run("import", out, "--db", tmp_path / "db", "-c", "cosine", "--metric", "cosine")[0] == 0
    assert run("import", out, "--db", tmp_path / "db", "-c", "l2", "--metric", "l2", "--dtype", "float32")[0] == 0
    with vecdb.open(tmp_path / "db") as database:
        docs = database.collection("l2")
        assert (docs.metric, docs.dtype) == ("l2", "float32")


def test_a_column_of_tenants_that_the_first_row_lacks(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 0, "v": [1.0, 2.0]}, {"id": 1, "v": [1.0, 2.0], "acl": ["acme"]}]
    file = lines(tmp_path / "x.jsonl", rows)
    words = ("--db", tmp_path / "db", "-c", "c", "--no-optimize", "--tenant-column", "acl", "--columns", "")
    assert run("import", file, *words)[0] == 0
    with vecdb.open(tmp_path / "db") as database:
        found = database.collection("c").get([0, 1])
        assert [(one.fields, one.tenants) for one in found] == [({}, []), ({}, ["acme"])]


def test_standard_input_is_read(tmp_path: Path) -> None:
    rows = [{"id": i, "v": [1.0, i]} for i in range(5)]
    code, found = run("import", "-", "--db", tmp_path / "db", "-c", "c", input=json.dumps(rows).encode())
    assert (code, found["live"]) == (0, 5)


def test_an_import_goes_on_where_nothing_can_be_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"".join(b'{"id": %d, "v": [1, %d]}\n' % (i, i) for i in range(5)))
    result = CommandRunner().run(["import", str(file), "--db", str(tmp_path / "db"), "-c", "c"])
    assert result.exit_code == 0 and "the folder cannot be written" in result.stderr
    with vecdb.open(tmp_path / "db", read_only=True) as database:
        assert database.collection("c").count() == 5


def test_a_batch_whose_fields_are_too_large_for_one_call_is_written_by_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb import limits

    monkeypatch.setattr(limits, "batch_bytes_max", 4_000)
    file = lines(tmp_path / "x.jsonl", [{"id": i, "v": [1.0, i], "t": "x" * 900} for i in range(20)])
    code, found = run("import", file, "--db", tmp_path / "db", "-c", "c", "--no-optimize")
    assert (code, found.get("live")) == (0, 20), found


@pytest.mark.parametrize(
    "words",
    [("vacuum",), ("tune", "-c", "c"), ("tenant", "grant", "a", "--id", 1, "-c", "c"), ("check",), ("info",),
     ("tenant", "create", "a", "-c", "c"), ("export", "x.npy", "-c", "c"), ("search", "-c", "c", "--id", 1)],
    ids=lambda words: " ".join(map(str, words[:2])),
)  # fmt: skip
def test_a_mistyped_database_is_not_made(words: tuple[Any, ...], tmp_path: Path) -> None:
    code, found = run(*words, "--db", tmp_path / "typo")
    assert code == 1 and found["error"]["code"] == "NOT_FOUND" and not (tmp_path / "typo").exists()
    assert "read_only" not in found["error"]["message"] and "import and serve make one" in found["error"]["message"]
    code, found = run(*words, "--db", "http://h:7711")
    assert code == 1 and found["error"]["code"] == "INVALID_ARGUMENT"
