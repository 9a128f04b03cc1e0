"""Export and import are each other's inverse: for any collection, through Parquet, JSONL and pairs of files; CSV gives
everything back or refuses by name, and then writes nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import vecdb
from tests.support.answers.command_line import CommandRunner

DIM = 3
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
NAMES = st.sampled_from(["a", "b", "year", "id", "vector", "_owner", "_tenants", "_fields", "", "a,b", "x.y", "vecdb"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    TEXT,
    st.binary(max_size=4),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(dt.UTC)),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=4
)
FEW = st.sampled_from([None, 1, 2.5, "5", "x", True, [], ["t"], {"$date": "x"}, math.nan, dt.date(2024, 1, 2)])
FIELDS = st.dictionaries(NAMES, FEW | VALUES, max_size=4) | st.dictionaries(st.sampled_from(["n", "s"]), FEW)
INDEXES = st.sampled_from([None, vecdb.Flat(), vecdb.Hnsw(m=8, ef=99), vecdb.Spann(bits=4), vecdb.Curator(leaf_rows=9)])

LISTS = (vecdb.Spann, vecdb.Curator)


@st.composite
def collections(draw: st.DrawFn) -> dict[str, Any]:
    """What a collection is made of: configuration, records by (owner, id), tenants and their quotas."""
    ids = st.integers(-(2**63), 2**63 - 1) if draw(st.booleans()) else TEXT.filter(bool)
    owners = st.sampled_from(["", "", "acme", "β\n"])
    keys = draw(st.lists(st.tuples(owners, ids), max_size=7, unique=True))
    if keys and draw(st.booleans()):
        keys = list(dict.fromkeys([*keys, ("acme", keys[0][1]), ("", keys[0][1])]))
    dtype = draw(st.sampled_from(["float32", "float16", "int8", "uint8", "bits"]))
    numbers = st.integers(1, 100).map(float) if dtype.endswith(("int8", "bits")) else st.floats(0.125, 64, width=16)
    vectors: Any = st.lists(numbers, min_size=DIM, max_size=DIM)
    if draw(st.integers(0, 3)) == 0:
        vectors |= st.none()
    records = [(owner, id, draw(vectors), draw(FIELDS), draw(TENANTS)) for owner, id in keys]
    return {
        "metric": draw(st.sampled_from(["hamming", "jaccard"] if dtype == "bits" else ["l2", "cosine", "ip"])),
        "dtype": dtype,
        "index": draw(INDEXES if dtype != "bits" else INDEXES.filter(lambda one: not isinstance(one, LISTS))),
        "records": records,
        "tenants": draw(st.dictionaries(st.sampled_from(["acme", "idle", "ß"]), st.none() | st.integers(20, 99))),
        "metadata": draw(st.dictionaries(st.sampled_from(["made by", "n", ""]), st.none() | TEXT | st.integers(0, 9))),
    }


TENANTS = st.lists(st.sampled_from(["acme", "beta", "[x]"]), max_size=2, unique=True)
PLAIN: dict[str, Any] = {
    "metric": "ip",
    "dtype": "float32",
    "index": None,
    "records": [("", at, [1.0, 2.0, at], {"s": f"text {at}", "n": at, "f": at / 2}, []) for at in range(3)],
    "tenants": {},
}
ALL_KINDS: dict[str, Any] = {
    "metric": "l2",
    "dtype": "float16",
    "index": vecdb.Hnsw(m=8),
    "records": [
        ("", "1", [1.0, 2.0, 3.0], {}, []),
        ("acme", "1", [2.0, 2.0, 3.0], {"n": 1, "v": 1.0, "l": [1, 2]}, ["acme"]),
        ("", "2", [3.0, 2.0, 3.0], {"n": 2.5, "v": None, "l": []}, ["acme", "beta"]),
        ("", "3", [4.0, 2.0, 3.0], {"n": True, "v": math.nan, "l": [1, "a"], "id": "x", "vector": "y"}, []),
        ("", "4\x01", [5.0, 2.0, 3.0], {"b": b"\x00\xff", "d": dt.date(2024, 1, 2), "$date": {"$date": 1}}, []),
        ("", "5", [6.0, 2.0, 3.0], {"t": dt.datetime(2024, 1, 2, 3), "z": dt.datetime(2024, 1, 2, tzinfo=dt.UTC)}, []),
    ],
    "tenants": {"idle": 30, "acme": 20},
}


BITS = PLAIN | {"metric": "jaccard", "dtype": "bits", "index": vecdb.Flat()}
SOME_BARE = ALL_KINDS | {
    "records": [*ALL_KINDS["records"], ("", "6", None, {}, ["acme"]), ("acme", "7", None, {"n": 1}, [])],
    "metadata": {"made by": "somebody", "sizes": [1, {"x": None}]},
}
ALL_BARE = PLAIN | {"records": [("", at, None, {"n": at}, []) for at in range(3)]}


def made(path: Path, model: dict[str, Any]) -> None:
    with vecdb.open(path) as database:
        docs = database.create_collection(
            "c",
            DIM if model["dtype"] != "bits" else 8 * DIM,
            model["metric"],
            model["index"],
            model["dtype"],
            metadata=model.get("metadata"),
        )
        for owner, id, vector, fields, tenants in model["records"]:
            array = (
                None if vector is None else np.array(vector, "uint8" if model["dtype"] == "bits" else model["dtype"])
            )
            docs.upsert(id, array, fields=fields, tenants=tenants, owner=owner)
        for name, quota in model["tenants"].items():
            docs.create_tenant(name, exist_ok=True, records_max=quota)


def facts_of(path: Path) -> Any:
    """All that a collection is, to be compared; NaN equals NaN, 1 differs from 1.0 and from True."""
    with vecdb.open(path, read_only=True) as database:
        docs = database.collection("c")
        records = {
            (one.owner, one.id): (
                None if one.vector is None else one.vector.tobytes(),
                told(one.fields),
                one.tenants,
            )
            for batch in docs.iter(include_vectors=True)
            for one in batch
        }
        quotas = {name: docs.stats(tenant=name)["records_max"] for name in docs.tenants()}
        assert len(records) == docs.count()
        config = docs.config
        facts = docs.dim, docs.metric, docs.dtype, config.index, config.id_kind, config.metadata
        return *facts, records, quotas


def told(value: Any) -> str:
    if isinstance(value, dict):
        return repr(sorted((name, told(inner)) for name, inner in value.items()))
    return repr([told(one) for one in value]) if isinstance(value, list) else repr(value)


def run(*words: object) -> tuple[int, Any]:
    """(exit code, document) of a command."""
    result = CommandRunner().run([*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def goes_there_and_back(suffix: str, model: dict[str, Any]) -> None:
    if suffix == "npy" and any(vector is None for _, _, vector, _, _ in model["records"]):
        goes_there_or_is_refused(suffix, model)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made(folder / "db", model)
        out = folder / f"out.{suffix}"
        code, said = run("export", out, "--db", folder / "db", "-c", "c")
        assert code == 0, said
        code, said = run("import", out, "--db", folder / "two", "-c", "c", "--no-optimize")
        assert code == 0, said
        assert facts_of(folder / "two") == facts_of(folder / "db")


def goes_there_or_is_refused(suffix: str, model: dict[str, Any]) -> None:
    file = f"out.{suffix}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made(folder / "db", model)
        before = sorted(path.name for path in folder.iterdir())
        code, said = run("export", folder / file, "--db", folder / "db", "-c", "c")
        if code:
            assert said["error"]["code"] == "INVALID_ARGUMENT" and f"{file} cannot hold" in said["error"]["message"]
            assert "--lossy" in said["error"]["message"]
            assert sorted(path.name for path in folder.iterdir()) == before
            code, said = run("export", folder / file, "--db", folder / "db", "-c", "c", "--lossy")
            assert code == 0 and said["losses"]
            return
        code, said = run("import", folder / file, "--db", folder / "two", "-c", "c", "--no-optimize")
        assert code == 0, said
        assert facts_of(folder / "two") == facts_of(folder / "db")


def goes_through_csv_or_is_refused(model: dict[str, Any]) -> None:
    goes_there_or_is_refused("csv", model)


few = settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy"])
@few
@given(model=collections())
@example(model=ALL_KINDS)
@example(model=SOME_BARE)
@example(model=ALL_BARE)
@example(model=BITS)
@example(model=PLAIN | {"records": []})
def test_what_is_exported_is_imported_as_it_was(suffix: str, model: dict[str, Any]) -> None:
    goes_there_and_back(suffix, model)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy"])
@many
@given(model=collections())
def test_any_collection_is_imported_as_it_was(suffix: str, model: dict[str, Any]) -> None:
    goes_there_and_back(suffix, model)


@few
@given(model=collections())
@example(model=PLAIN | {"records": [("", "007", [1.0, 2.0, 3.0], {"s": "x"}, [])]})
@example(model=ALL_BARE)
@example(model=PLAIN | {"records": [("", at, [1.0, 2.0, 3.0], {"s": "5"}, []) for at in range(2)]})
def test_csv_gives_everything_back_or_refuses_by_name(model: dict[str, Any]) -> None:
    goes_through_csv_or_is_refused(model)


@pytest.mark.slow
@many
@given(model=collections())
@example(model=PLAIN | {"records": []})
def test_any_collection_goes_through_csv_or_is_refused(model: dict[str, Any]) -> None:
    goes_through_csv_or_is_refused(model)


def test_plain_records_go_through_csv(tmp_path: Path) -> None:
    made(tmp_path / "db", PLAIN)
    assert run("export", tmp_path / "out.csv", "--db", tmp_path / "db", "-c", "c")[0] == 0
    assert run("import", tmp_path / "out.csv", "--db", tmp_path / "two", "-c", "c", "--no-optimize")[0] == 0
    assert facts_of(tmp_path / "two") == facts_of(tmp_path / "db")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy"])
def test_zero_vectors_come_back_into_a_collection_that_takes_them(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    with vecdb.open(tmp_path / "a") as db:
        docs = db.create_collection("docs", DIM, "cosine", zero_vectors="far")
        docs.upsert([1, 2], np.array([[0, 0, 0], [1, 2, 3]], np.float32))
    assert CommandRunner().run(["export", str(out), "-c", "docs", "--db", str(tmp_path / "a")]).exit_code == 0
    told = ["import", str(out), "-c", "docs", "--db", str(tmp_path / "b")]
    assert CommandRunner().run(told).exit_code == 0
    with vecdb.open(tmp_path / "b") as db:
        assert db["docs"].config.zero_vectors == "far" and db["docs"].count() == 2
    assert CommandRunner().run([*told, "--zero-vectors", "refuse"]).exit_code != 0


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_collection_without_a_dim_comes_back_without_one(tmp_path: Path, suffix: str) -> None:
    out, data = tmp_path / f"out.{suffix}", np.ones((1, DIM), np.float32)
    with vecdb.open(tmp_path / "a") as db:
        db.create_collection("docs").upsert([1, 2], fields=[{"n": 1}, {"n": 2}])
    assert CommandRunner().run(["export", str(out), "-c", "docs", "--db", str(tmp_path / "a")]).exit_code == 0
    told = ["import", str(out), "-c", "docs", "--db", str(tmp_path / "b")]
    for _ in range(2):  # into a new one, and into one that is there
        assert CommandRunner().run(told).exit_code == 0
    with vecdb.open(tmp_path / "b") as db:
        docs = db["docs"]
        assert docs.dim == 0 and docs.get(2).fields == {"n": 2}
        assert docs.upsert([3], data) == 1 and docs.dim == DIM
    code, found = run("import", out, "-c", "docs", "--db", tmp_path / "b")
    assert code == 0 and found["live"] == 3, "any dim is as good for records without a vector"
