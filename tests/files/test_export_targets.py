"""Where an export goes: files are replaced as a whole, links stay links, pipes and standard output get the rows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_datasets.formats import CollectionFacts, create_records, create_vectors
from vecdb_datasets.formats.records import jsonl
from vecdb_datasets.formats.records.writer import RecordBatch

ROOT = Path(__file__).resolve().parents[2]
FACTS = CollectionFacts(2, "l2", "float32")
PATHS = [str(ROOT), *(str(ROOT / name) for name in ("datasets", "bench", "server"))]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)}
BATCH = RecordBatch([1, 2], np.eye(2, dtype=np.float32), [{}, {}], ["", ""], [[], []])


def run(*words: object) -> tuple[int, Any]:
    result = CommandRunner().run([*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def command(*words: object, cwd: Path, **more: Any) -> subprocess.Popen[bytes]:
    code = "from vecdb.cli import main; main()"
    environment = ENVIRONMENT | more.pop("env", {})
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=cwd, env=environment, **more)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with vecdb.open(tmp_path / "db") as database:
        database.create_collection("c", dim=4).upsert(range(3), np.eye(4)[:3])
    return tmp_path / "db"


def test_a_pipe_gets_the_rows_and_stays_a_pipe(db: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    assert run("export", "-c", "c", "--db", db, "--format", "jsonl", tmp_path / "pipe")[0] == 0
    reader.join(60)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and got[0].count(b"\n") == 4


def test_a_link_stays_and_what_it_leads_to_is_written(db: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "target.jsonl").write_text("old")
    (tmp_path / "big" / "target.jsonl").chmod(0o640)
    (tmp_path / "link.jsonl").symlink_to("big/target.jsonl")
    assert run("export", "-c", "c", "--db", db, tmp_path / "link.jsonl")[0] == 0
    assert (tmp_path / "link.jsonl").is_symlink() and '"id":2' in (tmp_path / "big" / "target.jsonl").read_text()
    assert stat.S_IMODE((tmp_path / "big" / "target.jsonl").stat().st_mode) == 0o640
    assert [path.name for path in (tmp_path / "big").iterdir()] == ["target.jsonl"]


def test_a_link_that_leads_to_itself_and_devices_stay(db: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    code, found = run("export", "-c", "c", "--db", db, tmp_path / "loop.jsonl")
    assert code == 1 and "leads to itself" in found["error"]["message"] and (tmp_path / "loop.jsonl").is_symlink()
    (tmp_path / "null").symlink_to("/dev/null")
    for words in (
        ("export", "-c", "c", "--db", db, "--format", "jsonl"),
        ("dataset", "export", "clustered-50x4", "--out"),
    ):
        more = ("--format", "fbin") if words[0] == "dataset" else ()
        assert run(*words, tmp_path / "null", *more)[0] == 0
        assert (tmp_path / "null").is_symlink() and stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_standard_output_and_its_errors(db: Path, tmp_path: Path) -> None:
    for name in ("-", "/dev/stdout"):
        with (tmp_path / "out").open("wb") as out:
            process = command("export", "-c", "c", "--db", db, "--format", "jsonl", name, cwd=tmp_path, stdout=out)
            assert process.wait() == 0
        assert (tmp_path / "out").read_bytes().count(b"\n") == 4
    assert not (tmp_path / "-").exists()
    with open("/dev/full", "wb") as full:
        process = command("ls", "--db", db, "--json", cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
        said = process.communicate()[1]
    assert process.returncode == 1 and said.count(b"\n") == 1 and b"No space left" in said
    line = [sys.executable, "-c", "from vecdb.cli import main; main()", "ls", "--db", str(db), "--json"]
    without = ["sh", "-c", 'exec "$@" >&-', "sh", *line]
    done = subprocess.run(without, env=ENVIRONMENT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    result = CommandRunner().run(["export", "-c", "c", "--db", str(db), "-", "--json"])
    assert result.exit_code == 2


def test_targets_that_cannot_be_are_named_as_they_were_given(db: Path, tmp_path: Path) -> None:
    for target, said in (
        (tmp_path / "none" / "x.jsonl", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path, "is a directory"),
        (tmp_path / "x.what", "the format that its name tells is not one of"),
    ):
        code, found = run(
            "export", "-c", "c", "--db", db, target, *(("--format", "jsonl") if target == tmp_path else ())
        )
        assert code == 1 and said in found["error"]["message"] and "part-" not in found["error"]["message"]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv", "npy", "fbin"])
def test_an_export_that_fails_leaves_what_was_there(format: str, tmp_path: Path) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"x.{format}"
    with create_records(path, FACTS) as writer:
        writer.write(BATCH)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), create_records(path, FACTS) as writer:
        writer.write(BATCH)
        raise RuntimeError
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_parts_of_writers_that_are_no_more_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"x.npy.part-{gone.pid}").write_text("half")
    (tmp_path / f"x.npy.part-{os.getppid()}").write_text("another's")
    with create_vectors(tmp_path / "x.npy", 2) as writer:
        writer.write(np.eye(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", f"x.npy.part-{os.getppid()}"]


def test_sigterm_ends_an_export_as_an_interruption_does(db: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody reads it: the export waits there
    words = ("export", "-c", "c", "--db", db, "--format", "jsonl", "pipe", "--json")
    process = command(*words, cwd=tmp_path, stdout=subprocess.PIPE, env={"TMPDIR": str(tmp_path)})
    while not list(tmp_path.glob("vecdb-export-*/part")):
        assert process.poll() is None
    out = None
    while out is None:  # a signal may fall between a look for signals and a call that waits: tell it again
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            out = process.communicate(timeout=10)[0]
    assert process.returncode == 143 and json.loads(out)["error"]["code"] == "INTERRUPTED"
    assert not list(tmp_path.glob("vecdb-export-*"))


def test_an_import_reads_what_lies_beside_and_refuses_what_does_not_belong(db: Path, tmp_path: Path) -> None:
    assert run("export", "-c", "c", "--db", db, tmp_path / "x.npy")[0] == 0
    with (tmp_path / "x.npy.ids.jsonl").open("a") as file:
        file.write("7\n")
    code, found = run("import", tmp_path / "x.npy", "--db", tmp_path / "two", "-c", "c")
    assert code == 1 and "3 rows" in found["error"]["message"] and "different exports" in found["error"]["message"]
    assert run("import", tmp_path / "x.npy", "--db", tmp_path / "two", "-c", "c", "--new-ids")[0] == 0


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_columns_of_an_export_are_told_by_it(suffix: str, db: Path, tmp_path: Path) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"x.{suffix}"
    assert run("export", "-c", "c", "--db", db, out)[0] == 0
    to = ("--db", tmp_path / "two", "-c", "c", "--no-optimize")
    for option in ("--id-column", "--vector-column"):
        code, found = run("import", out, *to, option, "other")
        assert code == 1 and f"leave out {option}" in found["error"]["message"]
    assert run("import", out, *to, "--id-column", "id", "--vector-column", "vector")[0] == 0
    code, found = run("import", out, *to, "--new-ids")
    assert (code, found["live"], found["first_id"]) == (0, 6, 3)
    with vecdb.open(tmp_path / "two") as database:
        assert all(one.fields == {} for one in database.collection("c").get(range(6)))


def test_many_tenants_take_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb_datasets import open_vectors

    monkeypatch.setattr(jsonl, "tenants_of_a_line", 2)
    tenants = {f"t{i}": None if i % 2 else i + 1 for i in range(5)}
    with create_records(tmp_path / "x.jsonl", CollectionFacts(2, "l2", "float32", tenants=tenants)) as writer:
        writer.write(BATCH)
    assert (tmp_path / "x.jsonl").read_text().count("\n") == 5
    with open_vectors(tmp_path / "x.jsonl") as source:
        assert source.facts is not None and source.facts.tenants == tenants and source.ids() == [1, 2]


def test_any_float32_is_written_in_few_digits_and_comes_back() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    usual = np.random.default_rng(1).normal(size=20_000).astype(np.float32)
    edges = np.array([0, -0.0, 1e-45, 1.17549435e-38, 3.4028235e38, -3.4028235e38, 0.1, 1e10, 123456789], np.float32)
    for numbers in (bits[np.isfinite(bits)], usual, edges):
        short = jsonl.short_doubles(numbers)
        assert np.array_equal(short.astype(np.float32).view(np.uint32), numbers.view(np.uint32))
    digits = [
        len(repr(x).strip("-").replace(".", "").lstrip("0").split("e")[0]) for x in jsonl.short_doubles(usual).tolist()
    ]
    assert max(digits) <= 9
