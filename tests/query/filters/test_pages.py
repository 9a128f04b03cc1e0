"""Goal: pages are in the order that is asked for, and a cursor goes on exactly behind its page's last record, whatever
was written since, after a vacuum and a reopening, too.
"""

from __future__ import annotations

import base64
import datetime as dt
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from vecdb import F, limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.times import moment
from vecdb.query.listing import order, pages

DAY, TIME = dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3, 4)
VALUES = [
    None, True, False, 3, -1, 2.5, 3.0, 2**53 + 1, float(2**53), float("inf"), float("nan"), "", "b", "ab", "ü",
    b"x", b"", DAY, TIME, TIME.replace(tzinfo=dt.UTC), [1], ["a"], [], {"x": 1}, {},
]  # fmt: skip
TYPES: list[tuple[type, ...]] = [(bool,), (int, float), (str,), (bytes,), (dt.date,), (list,), (dict,)]


def group_of(value: Any) -> int:
    return next((at for at, types in enumerate(TYPES) if isinstance(value, types)), len(TYPES))


def plain(value: Any) -> tuple[bool, Any]:
    """A value that has an order with the others of its group, NaN last."""
    if value != value:
        return True, 0
    return False, moment(value) if isinstance(value, dt.date) else 0 if isinstance(value, (list, dict)) else value


def in_order(model: dict[tuple[str, Any], Any], *, descending: bool) -> list[tuple[str, Any]]:
    """Owners and ids by value: a sort by the last key first."""
    keys = sorted(model, key=lambda one: (one[1], one[0]))
    for group in range(len(TYPES)):
        some = [one for one in keys if group_of(model[one]) == group]
        some.sort(key=lambda one: plain(model[one]), reverse=descending)
        keys = [one for one in keys if group_of(model[one]) != group] + some
    missing = [one for one in keys if model[one] is None]
    present = [one for one in keys if model[one] is not None]
    present.sort(key=lambda one: group_of(model[one]), reverse=descending)
    return present + missing


class Twin:
    """A collection and what it holds: the value of field v, and when the row was written, by owner and id."""

    def __init__(self, folder: Path, ids: Callable[[int], Any]) -> None:
        self.folder, self.id = folder, ids
        self.db = open_database(folder, durability="relaxed", maintenance=False)
        self.docs = self.db.create_collection("docs", 2, "l2")
        self.values: dict[tuple[str, Any], Any] = {}
        self.births: dict[tuple[str, Any], int] = {}
        self.born = 0

    def upsert(self, numbers: list[int], values: list[Any], owner: str = "") -> None:
        names = [self.id(number) for number in numbers]
        fields = [{} if value is None else {"v": value} for value in values]
        self.docs.upsert(names, np.ones((len(names), 2)), fields, owner=owner)
        for name, value in zip(names, values, strict=True):
            self.values[owner, name] = value
            self.births[owner, name] = self.born = self.born + 1

    def delete(self, some: list[tuple[str, Any]]) -> None:
        for owner, name in some:
            self.docs.delete(name, owner=owner)
            del self.values[owner, name], self.births[owner, name]

    def reopen(self) -> None:
        self.db.close()
        self.db = open_database(self.folder, durability="relaxed", maintenance=False)
        self.docs = self.db["docs"]


def names_of(page: Any) -> list[tuple[str, Any]]:
    return [(one.owner, one.id) for one in page]


def made(folder: Path, seed: int) -> tuple[Twin, random.Random]:
    rng = random.Random(seed)
    twin = Twin(folder, (lambda number: number) if seed % 2 else (lambda number: f"id-{number}"))
    for start in (0, 20, 40):
        numbers = rng.sample(range(start, start + 20), 20)
        twin.upsert(numbers, [rng.choice(VALUES) for _ in numbers])
    twin.upsert(rng.sample(range(60), 15), [rng.choice(VALUES) for _ in range(15)], owner="ann")
    return twin, rng


def change(twin: Twin, rng: random.Random) -> None:
    """Some writes; now and then a vacuum or a reopening."""
    twin.delete(rng.sample(sorted(twin.values), rng.choice([0, 1, 3])))
    numbers = rng.sample(range(80), rng.choice([0, 1, 4]))
    if numbers:
        twin.upsert(numbers, [rng.choice(VALUES) for _ in numbers], rng.choice(["", "ann"]))
    step = rng.random()
    if step < 0.4:
        twin.db.vacuum()
    elif step < 0.6:
        twin.reopen()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("descending", [False, True])
def test_pages_in_the_order_of_a_field_go_on_whatever_was_written(tmp_path: Path, seed: int, descending: bool) -> None:
    twin, rng = made(tmp_path / "db", seed)
    with pytest.MonkeyPatch.context() as patch:
        if seed >= 4:
            patch.setattr(limits, "columns_max", 0)  # by the records themselves
        walked = [one for page in twin.docs.iter(7, order_by="v", descending=descending) for one in names_of(page)]
        assert walked == in_order(twin.values, descending=descending)
        after: str | None = None
        last: tuple[tuple[str, Any], Any] | None = None
        for _ in range(100):
            expected = in_order(twin.values, descending=descending)
            if last is not None:
                expected = behind(twin.values, *last, descending=descending)
            page = next(twin.docs.iter(7, after=after, limit=5, order_by="v", descending=descending), None)
            if page is None:
                assert not expected
                break
            assert names_of(page) == expected[:5]
            assert (page.cursor is None) == (len(expected) <= 5)
            if page.cursor is None:
                break
            after, last = page.cursor, (names_of(page)[-1], page[-1].fields.get("v"))
            change(twin, rng)
        twin.db.close()


def behind(model: dict[tuple[str, Any], Any], name: tuple[str, Any], value: Any, *, descending: bool) -> list[Any]:
    """What comes behind a record that had this name and value, in the order as it is now."""
    ghost = (name[0] + "\0", name[1])  # right behind the record itself among equal ids
    order = in_order(model | {ghost: value}, descending=descending)
    return order[order.index(ghost) + 1 :]


def test_the_records_are_read_once_for_all_pages_of_one_state(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "by_columns", lambda *_: None)  # as where texts are too many for a column
    asked = []

    def by_values(values: Any, place: Any) -> Any:
        asked.append(place)
        return order.by_values(values, place)

    monkeypatch.setattr(pages, "by_values", by_values)
    docs = db.create_collection("docs", 2, "l2")
    docs.upsert(range(100), np.ones((100, 2), np.float32), [{"v": f"{one * 37 % 100:02}"} for one in range(100)])
    found: list[str] = []
    after: str | None = None
    while not found or after is not None:
        page = next(docs.iter(9, order_by="v", after=after, limit=9))
        found += [one.fields["v"] for one in page]
        after = page.cursor
    assert found == [f"{one:02}" for one in range(100)]
    assert asked == [None], "a page has sorted the whole collection again"


@pytest.mark.parametrize("seed", range(6))
def test_pages_in_row_order_go_on_whatever_was_written(tmp_path: Path, seed: int) -> None:
    twin, rng = made(tmp_path / "db", seed)
    after: str | None = None
    born = 0
    for _ in range(100):
        expected = sorted((one for one, at in twin.births.items() if at > born), key=twin.births.__getitem__)
        page = next(twin.docs.iter(4, after=after, limit=4), None)
        if page is None:
            assert not expected
            break
        assert names_of(page) == expected[:4]
        assert (page.cursor is None) == (len(expected) <= 4)
        if page.cursor is None:
            break
        after, born = page.cursor, twin.births[names_of(page)[-1]]
        if seed >= 3:  # all that was seen goes, and the next, too
            gone = [one for one, at in twin.births.items() if at <= born or at == born + 1]
            twin.delete(gone)
            twin.db.vacuum()
        change(twin, rng)
    twin.db.close()


def test_a_cursor_that_lost_its_place_says_so(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "db", int)
    twin.upsert(list(range(40)), [None] * 40)
    page = next(twin.docs.iter(10))
    twin.delete([("", number) for number in range(5, 20)])
    assert names_of(next(twin.docs.iter(3, after=page.cursor))) == [("", 20), ("", 21), ("", 22)]
    twin.db.vacuum()
    with pytest.raises(InvalidArgument, match="begin again"):
        next(twin.docs.iter(3, after=page.cursor))
    twin.db.close()


def test_pages_of_a_filter_and_of_tenants(db: Database) -> None:
    docs = db.create_collection("docs", 2)
    lists = [["t"] if number % 2 else [] for number in range(100)]
    docs.upsert(range(100), np.ones((100, 2)), [{"n": number % 10} for number in range(100)], tenants=lists)
    page = next(docs.iter(4, filter=F.n > 4, tenant="t"))
    assert [one.id for one in page] == [5, 7, 9, 15]
    pages = list(docs.iter(4, filter=F.n > 4, tenant="t", after=page.cursor, limit=6))
    assert [[one.id for one in part] for part in pages] == [[17, 19, 25, 27], [29, 35]]
    assert all(part.cursor for part in pages)
    assert [one.id for one in next(docs.iter(filter="n > $n", filter_params={"n": 4}, after=pages[1].cursor))] == [
        number for number in range(36, 100) if number % 10 > 4
    ]
    down = next(docs.iter(5, filter=F.n.is_in([3, 5]), order_by="n", descending=True, include_vectors=True))
    assert [one.id for one in down] == [5, 15, 25, 35, 45] and down[0].vector is not None
    assert list(docs.iter(filter=F.n == 99)) == []
    whole = list(docs.iter(100, filter=F.n >= 0))
    assert len(whole) == 1 and whole[0].cursor is None
    assert docs.get(limit=2) == docs.get([0, 1])
    assert [one.id for one in docs.get(filter=F.n == 3, limit=2)] == [3, 13]


def test_one_list_is_bounded(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "get_records_max", 5)
    docs = db.create_collection("docs", 2)
    docs.upsert(range(9), np.ones((9, 2)), owner="ann")
    for given in ({}, {"owner": "ann"}):
        with pytest.raises(LimitExceeded, match=r"at most 5 records, [0-9]+ match"):
            docs.get(filter="true", **given)
    assert len(docs.get(filter="true", limit=5, owner="ann")) == 5 and docs.get(filter="true", owner="bob") == []
    with pytest.raises(LimitExceeded):
        docs.get(filter="true", limit=6)


# -- cursors that are not ours ---------------------------------------------------------------------


def text_of(parts: Any) -> str:
    raw = msgspec.msgpack.encode(parts)
    return base64.urlsafe_b64encode(raw + struct.pack("<I", zlib.crc32(raw))).decode()


def test_a_cursor_of_another_listing_is_refused(db: Database) -> None:
    docs, others = db.create_collection("docs", 2), db.create_collection("others", 2)
    for one in (docs, others):
        one.upsert(range(9), np.ones((9, 2)), [{"n": 1}] * 9)
    rows = next(docs.iter(3)).cursor
    ordered = next(docs.iter(3, order_by="n")).cursor
    assert rows is not None and ordered is not None
    wrong: list[tuple[Any, dict[str, Any], Any, str]] = [
        (others, {}, rows, "another collection"),
        (docs, {"order_by": "n"}, rows, "without order_by"),
        (docs, {}, ordered, "with order_by='n'"),
        (docs, {"order_by": "m"}, ordered, "with order_by='n'"),
        (docs, {"order_by": "n", "descending": True}, ordered, "with order_by='n'"),
        (docs, {}, rows[:-8], "it is"),
        (docs, {}, "x", "no cursor"),
        (docs, {}, "\ud800", "no cursor"),
        (docs, {}, "", "cursor of a page"),
        (docs, {}, 3, "cursor of a page"),
        (docs, {}, "A" * (1 << 22), "cursor of a page"),
    ]
    for where, given, cursor, message in wrong:
        with pytest.raises(InvalidArgument, match=message):
            list(where.iter(after=cursor, **given))


@pytest.mark.parametrize(
    "change",
    [
        {5: "x"}, {5: 9}, {5: -1}, {5: 1 << 70}, {6: 1 << 63}, {5: 4, 6: (1 << 64) - 1}, {6: "a"}, {6: {}}, {6: None},
        {6: True}, {4: ["", "one", 0]},
        {4: ["x" * 999, 1, 0]}, {4: ["", 1 << 63, 0]}, {4: [1, 1, 0]}, {0: 2}, {3: 0}, {9: [["", "x", 1]]},
    ],
)  # fmt: skip
def test_a_hostile_cursor_is_refused(db: Database, change: dict[int, Any]) -> None:
    docs = db.create_collection("docs", 2)
    docs.upsert(range(9), np.ones((9, 2)), [{"n": 1}] * 9)
    cursor = next(docs.iter(3, order_by="n")).cursor
    assert cursor is not None
    parts = msgspec.msgpack.decode(base64.urlsafe_b64decode(cursor)[:-4])
    for at, value in change.items():
        parts[at] = value
    try:
        text = text_of(parts)
    except OverflowError:
        return  # msgpack has no such number
    with pytest.raises(InvalidArgument, match=r"after|id|owner"):
        list(docs.iter(after=text, order_by="n"))


def test_listings_refuse_what_means_nothing(db: Database) -> None:
    docs = db.create_collection("docs", 2)
    calls: list[Callable[[], Any]] = [
        lambda: docs.iter(descending=True),
        lambda: docs.iter(order_by=3),  # type: ignore[arg-type]
        lambda: docs.iter(order_by="n", descending=1),  # type: ignore[arg-type]
        lambda: docs.iter(limit=0),
        lambda: docs.get(),
        lambda: docs.get(1, limit=3),
        lambda: docs.get(filter="true", limit=0),
        lambda: docs.facets("n", limit=0),
        lambda: docs.facets(3),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(InvalidArgument):
            call()
