"""What several shards find, put together, is what one collection finds: beside an embedded one and brute force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.cluster.in_process import InProcessCluster
from vecdb import F, validate
from vecdb.cluster.cluster_writes import Split, made_ids, part_id
from vecdb.cluster.placement import Placement
from vecdb.embedded.open import open_database

ROWS, DIM = 240, 6
RNG = np.random.default_rng(4)
VECTORS = RNG.normal(size=(ROWS, DIM)).astype(np.float32)
FIELDS: list[dict[str, Any]] = [
    {
        "n": n,
        "lang": ("en", "de", "fr")[n % 3],
        "score": [None, 1.5, float("nan"), n % 5, -0.0, True, "x", b"y", [n], {"a": n}][n % 10],
        "tags": [n % 2, "all"],
    }
    for n in range(ROWS)
]
TENANTS = [[f"t{n % 4}", "all"] if n % 4 else [] for n in range(ROWS)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessCluster]:
    made = InProcessCluster(tmp_path_factory.mktemp("shards"), 3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def here() -> Iterator[vecdb.Database]:
    with open_database(":memory:", maintenance=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def docs(db: vecdb.Database) -> Any:
    return filled(db)


@pytest.fixture(scope="module")
def twin(here: vecdb.Database) -> Any:
    return filled(here)


def filled(db: Any) -> Any:
    made = db.create_collection("docs", DIM, "l2")
    made.upsert(range(ROWS), VECTORS, FIELDS, TENANTS)
    made.upsert(range(0, 30, 3), VECTORS[:10] + 9, [{"n": -n} for n in range(10)], owner="acme")
    return made


def plain(record: vecdb.Record) -> tuple[Any, ...]:
    vector = None if record.vector is None else record.vector.tolist()
    return record.id, record.owner, repr(record.fields), record.tenants, vector


def everything(docs: Any, **options: Any) -> list[tuple[Any, ...]]:
    return [plain(one) for page in docs.iter(include_vectors=True, **options) for one in page]


def test_records_are_all_there_each_once(docs: Any, twin: Any) -> None:
    for options in ({}, {"filter": F.lang == "en"}, {"tenant": "t1"}, {"tenant": ["t1", "t3"]}, {"filter": "false"}):
        for batch in (7, 1000):
            assert sorted(everything(docs, batch=batch, **options)) == sorted(everything(twin, **options))
    for filter in (F.n < 50, F.lang != "de"):
        found = docs.get(filter=filter, include_vectors=True)
        assert sorted(map(plain, found)) == sorted(map(plain, twin.get(filter=filter, include_vectors=True)))
        assert len(docs.get(filter=filter, limit=20)) == 20
    assert sorted(map(plain, docs.get(filter="true", owner="acme"))) == sorted(
        map(plain, twin.get(filter="true", owner="acme"))
    )


@pytest.mark.parametrize("batch", [9, 64, 400])
@pytest.mark.parametrize("limit", [None, 100])
def test_pages_without_an_order_go_on_from_every_cursor(docs: Any, batch: int, limit: int | None) -> None:
    pages = list(docs.iter(batch, limit=limit))
    ids = [(one.id, one.owner) for page in pages for one in page]
    assert [len(page) for page in pages[:-1]] == [batch] * (len(pages) - 1)
    assert len(set(ids)) == len(ids) == (limit or ROWS + 10)
    assert all(page.cursor is not None for page in pages[:-1]) and (pages[-1].cursor is None) == (limit is None)
    every = [(one.id, one.owner) for page in docs.iter(1000) for one in page]
    for at in range(0, len(pages), max(1, len(pages) // 9)):
        if pages[at].cursor is not None:
            rest = [(one.id, one.owner) for page in docs.iter(50, after=pages[at].cursor) for one in page]
            assert ids[: batch * (at + 1)] + rest == every


@pytest.mark.parametrize("order_by", ["n", "score", "lang", "none"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_in_an_order_are_those_of_the_twin_and_go_on_from_every_cursor(
    docs: Any, twin: Any, order_by: str, descending: bool
) -> None:
    order: dict[str, Any] = {"order_by": order_by, "descending": descending}
    expected = everything(twin, **order)
    assert everything(docs, **order) == expected
    pages = list(docs.iter(17, limit=120, **order))
    assert [plain(one)[:2] for page in pages for one in page] == [one[:2] for one in expected[:120]]
    assert all(page.cursor is not None for page in pages)
    for at, page in enumerate(pages):
        rest = everything(docs, batch=23, after=page.cursor, **order)
        assert rest == expected[min(120, 17 * (at + 1)) :]
    with pytest.raises(vecdb.InvalidArgument, match="it is of a listing"):
        docs.iter(after=pages[0].cursor)


def test_a_cursor_holds_where_records_come_and_go(db: vecdb.Database) -> None:
    docs = db.create_collection("moving", 2, "l2")
    docs.upsert(range(100), np.zeros((100, 2)), [{"n": 2 * n} for n in range(100)])
    page = next(iter(docs.iter(20, order_by="n")))
    docs.delete([19, 30])
    docs.upsert(range(200, 240), np.zeros((40, 2)), [{"n": 2 * n + 1} for n in range(40)])
    docs.vacuum()
    left = [one.fields["n"] for some in docs.iter(7, order_by="n", after=page.cursor) for one in some]
    known = [2 * n for n in range(100) if n not in (19, 30)] + [2 * n + 1 for n in range(40)]
    assert left == sorted(n for n in known if n > 38)
    with pytest.raises(vecdb.InvalidArgument, match="another collection"):
        db.collection("docs").iter(after=page.cursor, order_by="n")


def test_facts_of_fields_are_those_of_the_twin(docs: Any, twin: Any) -> None:
    for options in ({}, {"filter": F.lang == "en"}, {"tenant": "t2"}):
        for field in ("n", "lang", "tags"):
            assert docs.facets(field, limit=7, **options) == twin.facets(field, limit=7, **options)
            assert list(docs.facets(field, **options).items()) == list(twin.facets(field, **options).items())
            assert docs.distinct(field, **options) == twin.distinct(field, **options)
        assert (docs.min("n", **options), docs.max("n", **options)) == (
            twin.min("n", **options),
            twin.max("n", **options),
        )
    assert docs.fields() == twin.fields() and docs.count(filter=F.n < 9) == twin.count(filter=F.n < 9)
    with pytest.raises(vecdb.InvalidArgument, match="have no order with one another"):
        docs.min("score")


def test_tenants_of_which_some_shards_know_nothing(db: vecdb.Database) -> None:
    docs = db.create_collection("few", DIM, "l2")
    docs.upsert(range(40), VECTORS[:40])
    docs.upsert([100], VECTORS[:1], tenants="one")
    docs.upsert([101, 102], VECTORS[1:3], tenants=[["two"], ["two", "one"]])
    assert docs.search(VECTORS[0], 5, tenant="one").ids.tolist() in ([100, 102], [102, 100])
    assert sorted(docs.search(VECTORS[0], 5, tenant=["one", "two"]).ids.tolist()) == [100, 101, 102]
    assert docs.count(tenant=["one", "two"]) == 3 and docs.count(tenant="one") == 2
    assert docs.get([100, 101], tenant="one")[1] is None and docs.get(100, tenant="two") is None
    assert sorted(one.id for page in docs.iter(tenant="two") for one in page) == [101, 102]
    assert list(docs.tenants()) == ["one", "two"] and docs.stats(tenant="one")["records"] == 2
    for call in (
        lambda: docs.search(VECTORS[0], tenant="nobody"), lambda: docs.count(tenant=["one", "nobody"]),
        lambda: docs.get(1, tenant="nobody"), lambda: list(docs.iter(tenant=["two", "nobody"])),
        lambda: docs.drop_tenant("nobody"), lambda: docs.stats(tenant="nobody"),
    ):  # fmt: skip
        with pytest.raises(vecdb.NotFound, match="nobody"):
            call()
    with pytest.raises(vecdb.AlreadyExists):
        docs.create_tenant(["three", "one"])
    assert docs.drop_tenant("two", records=True) == 1 and docs.count() == 42
    docs.create_tenant("full", records_max=2)
    docs.upsert([1, 2], VECTORS[:2], tenants="full", owner="full")
    with pytest.raises(vecdb.LimitExceeded):
        docs.upsert([3], VECTORS[:1], tenants="full", owner="full")


def test_a_mixture_is_of_what_is_near_its_interests(db: vecdb.Database) -> None:
    docs = db.create_collection("tastes", 2, "l2")
    centres = np.array([[0, 0], [100, 0], [0, 100], [100, 100]], np.float32)
    vectors = np.repeat(centres, 30, 0) + RNG.normal(size=(120, 2)).astype(np.float32)
    docs.upsert(range(120), vectors, [{"n": n} for n in range(120)])
    positives = [0, 1, 2, 3, 4, 5, 30, 31, 60]
    hits = docs.search_mixture(positives, 30, components=3, explain=True, fields=["n"], include_vectors=True)
    assert len(hits) == len(set(hits.ids.tolist())) == 30 and not set(hits.ids.tolist()) & set(positives)
    assert [hits.explain["quotas"], hits.explain["sizes"]] == [[20, 7, 3]] * 2 and np.bincount(
        hits.components
    ).tolist() == [20, 7, 3]
    for hit in hits:
        home = [0, 1, 2][hit.component]
        assert hit.id // 30 == home and hit.fields == {"n": hit.id}
        liked = vectors[[one for one in positives if one // 30 == home]].mean(0)
        assert hit.distance == pytest.approx(float(((hit.vector - liked) ** 2).sum()), rel=1e-4, abs=1e-4)
    assert len(docs.search_mixture(positives, 200)) == 111


def test_a_call_is_split_by_slots() -> None:
    placement = Placement.even(4)
    for ids in (validate.ids(range(1_000)), validate.ids([f"x{n}" for n in range(1_000)])):
        split = Split(placement, ids, b"")
        assert sorted(np.concatenate([at for _, at in split.parts if at is not None]).tolist()) == list(range(1_000))
        assert [shard for shard, _ in split.parts] == [0, 1, 2, 3]
        assert len(Split(placement, ids, b"acme").parts) == 1
    assert part_id(None) != part_id(None) and part_id(b"x") == b"x"  # which shards to come have to know
    assert part_id(b"x" * 128) == b"x" * 128 and len(part_id(b"x" * 128 + b"#1")) <= 128


def test_made_ids_are_the_same_for_one_request_and_sort_by_time() -> None:
    for kind in (None, "int", "str"):
        made = [made_ids(kind, 500, None) for _ in range(20)]
        assert all(one.unique is None and one.kind == (kind or "int") for one in made)
        assert len(made_ids(kind, 0, None).keys) == 0
        assert made_ids(kind, 5, b"r").keys == made_ids(kind, 5, b"r").keys != made_ids(kind, 5, b"s").keys
        assert all(one.keys == sorted(one.keys) for one in made)


@pytest.mark.parametrize("request_id", [None, "r"])
@pytest.mark.parametrize("kind", ["int", "str"])
def test_records_whose_made_ids_are_taken_get_others(
    db: vecdb.Database, kind: str, request_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ids that are made are those of records that are there, for the second shard's part of a call."""
    docs = db.create_collection(f"made-{kind}-{request_id}", DIM, "l2")
    first = made_ids(kind, 40, b"first")
    plain = first.ints.tolist() if first.ints is not None else [key.decode() for key in first.keys]
    placement = Placement.read(db._backend._shards.members._bucket)
    taken = plain[int(dict(Split(placement, first, b"").parts)[1][3])]
    docs.upsert([taken], VECTORS[99:100], [{"n": "before"}])

    def made(kind: str, n: int, request: bytes | None) -> validate.IdBatch:
        asked.append(n)
        return made_ids(kind, n, b"first" if n == 40 else request)

    asked: list[int] = []
    monkeypatch.setattr("vecdb.cluster.cluster_writes.made_ids", made)
    fields = [{"n": n} for n in range(40)]
    for _ in range(1 if request_id is None else 2):
        asked.clear()
        ids = docs.add(VECTORS[:40], fields, tenants=[[f"t{n}"] for n in range(40)], request_id=request_id)
        assert asked[0] == 40 and 0 < asked[1] < 40 and len(asked) == 2
        assert len(set(ids)) == 40 and taken not in ids and docs.count() == 41
        found = docs.get(ids, include_vectors=True)
        assert [one.fields["n"] for one in found] == list(range(40))
        assert [one.tenants for one in found] == [[f"t{n}"] for n in range(40)]
        assert np.array_equal([one.vector for one in found], VECTORS[:40])


def test_a_collection_of_a_cluster_says_what_each_shard_has(db: vecdb.Database, docs: Any) -> None:
    hits = docs.search(VECTORS[0], 5, explain=True)
    assert set(hits.explain["shards"]) == {"0", "1", "2"} == set(docs.stats()["shards"])
    assert hits.sequence.keys() == db.sequence().keys() == {0, 1, 2}
    db.wait_for(hits.sequence)
    stats = docs.stats()
    assert stats["live"] == ROWS + 10 == sum(one["live"] for one in stats["shards"].values())
    assert db.stats()["collections"] == len(db.collections()) and str(db.path).startswith("cluster://")


async def test_a_cluster_is_awaited(cluster: InProcessCluster, docs: Any) -> None:
    async with vecdb.aio.open(cluster.url) as db:
        seen = await db.collection("docs")
        assert (await seen.search(VECTORS[3], 1)).ids.tolist() == [3]
        assert [len(page) async for page in seen.iter(200)] == [200, 50]


def test_backups_are_one_for_each_shard(
    cluster: InProcessCluster, db: vecdb.Database, docs: Any, tmp_path: Path
) -> None:
    db.backup("all")
    counts = []
    for shard in range(3):
        vecdb.restore(cluster.folder / "backups" / f"all-shard-{shard}", tmp_path / str(shard))
        with vecdb.open(tmp_path / str(shard)) as part:
            counts.append(part.collection("docs").count())
    assert sum(counts) == docs.count() and min(counts) > 0
