"""Posting lists in files: sealed, opened, damaged and vacuumed; what is dead or damaged is never an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.disk_rows import DiskRows
from tests.support.index_rows import clustered, recall
from tests.support.spann.index import (
    ALL,
    WIDE,
    Make,
    add_all,
    assert_true,
    assert_well,
    contents,
    reached,
    resident_bytes,
    rows_by_list,
    same,
    view_of,
)
from vecdb.errors import Corruption
from vecdb.index.spann import list_updates
from vecdb.index.spann import posting_lists as lists_module
from vecdb.index.spann.posting_lists import ListsView, with_room
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import SearchParams
from vecdb.storage.disk import list_file

# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("budget", [None, 0, 6_000])
def test_a_sealed_index_answers_as_before(make: Make, tmp_path: Path, budget: int | None, mapped: bool) -> None:
    vectors = clustered(2200, 24)
    rows, index = make(vectors[:2000], indexed=1800, memory_budget_bytes=budget)
    rows.delete(np.arange(100, 150))
    index.remove(rows.sequence)
    path = tmp_path / "0" / "spann.0.1"
    facts = index.seal(path)
    assert (facts.rows, facts.sequence, facts.bytes) == (1800, rows.sequence, path.stat().st_size)
    (name, size), *others = facts.parts
    assert others == [] and (tmp_path / "0" / name).stat().st_size >= size
    again = SpannIndex.open(path, index.config, "l2", rows, mapped=mapped)
    assert again.indexed_rows == 1800 and contents(again) == contents(index) and again.check() == []
    if budget is not None:
        assert resident_bytes(again) <= budget
    queries = clustered(50, 24, seed=2)
    assert same(index.search(queries, 10, rows.visibility(), WIDE), again.search(queries, 10, rows.visibility(), WIDE))
    if not mapped:
        rows.append(vectors[2000:])
        add_all(again, rows)
        second = again.seal(tmp_path / "0" / "spann.0.2")
        third = SpannIndex.open(tmp_path / "0" / "spann.0.2", index.config, "l2", rows)
        assert second.rows == 2200 and contents(third) == contents(again) and third.check() == []


def test_what_a_writer_left_behind_the_sealed_pages_does_not_matter(make: Make, tmp_path: Path) -> None:
    """A crash after lists were flushed and before they were sealed: the sealed state comes back and goes on."""
    vectors = clustered(2000, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    before = contents(index)
    rows.append(vectors[1200:])
    index.add(1600)
    again = SpannIndex.open(path, index.config, "l2", rows)
    assert contents(again) == before and again.check() == []
    again.add(2000)
    assert_well(again)
    assert reached(again, rows, vectors[:40], 10, ALL) > 0.93


def test_a_file_of_mostly_old_extents_is_written_anew(make: Make, tmp_path: Path) -> None:
    vectors = clustered(4000, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    index.seal(tmp_path / "0" / "one")
    first = view_of(index).file
    for stop in range(1600, 4001, 400):
        rows.append(vectors[stop - 400 : stop])
        index.add(stop)
    before = contents(index)
    facts = index.seal(tmp_path / "0" / "two")
    assert first is not None and facts.parts[0][0] != first.path.name and index.lists.garbage_pages() == 0
    again = SpannIndex.open(tmp_path / "0" / "two", index.config, "l2", rows)
    assert contents(again) == before and again.check() == []


def test_an_index_that_chose_its_replicas_opens_under_another_budget(make: Make, tmp_path: Path) -> None:
    """How much memory a process gives is no property of the file: a reader may have more, or none."""
    rows, index = make(clustered(1500, 24), memory_budget_bytes=0)
    index.seal(tmp_path / "0" / "sealed")
    queries = clustered(30, 24, seed=2)
    wanted = index.search(queries, 10, rows.visibility(), WIDE)
    for budget in (None, 5_000):
        config = replace(index.config, memory_budget_bytes=budget)
        again = SpannIndex.open(tmp_path / "0" / "sealed", config, "l2", rows, mapped=True)
        assert same(wanted, again.search(queries, 10, rows.visibility(), WIDE))


def test_a_file_of_other_parameters_is_refused(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(300, 24))
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    with pytest.raises(Corruption, match="metric"):
        SpannIndex.open(path, index.config, "ip", rows)
    with pytest.raises(Corruption, match="bits: expected 4"):
        SpannIndex.open(path, replace(index.config, bits=4), "l2", rows)
    with pytest.raises(Corruption, match="replicas"):
        SpannIndex.open(path, replace(index.config, replicas=3), "l2", rows)


def test_a_missing_list_file_is_not_found(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(300, 24))
    facts = index.seal(tmp_path / "0" / "sealed")
    (tmp_path / "0" / facts.parts[0][0]).unlink()
    with pytest.raises(FileNotFoundError):
        SpannIndex.open(tmp_path / "0" / "sealed", index.config, "l2", rows)


def _with(path: Path, whole: bytes, place: int) -> None:
    damaged = bytearray(whole)
    damaged[place] ^= 1 << (place % 8)
    path.write_bytes(damaged)


def test_every_flipped_bit_of_the_directory_is_noticed(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24))
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    whole = path.read_bytes()
    target = tmp_path / "0" / "damaged"
    for place in sorted({*range(0, 400, 3), *np.linspace(0, len(whole) - 1, 200).astype(int).tolist()}):
        _with(target, whole, place)
        with pytest.raises(Corruption):
            SpannIndex.open(target, index.config, "l2", rows)
    for length in (0, 10, 4096, len(whole) - 4096, len(whole) - 1):
        target.write_bytes(whole[:length])
        with pytest.raises(Corruption):
            SpannIndex.open(target, index.config, "l2", rows)


def test_a_flipped_bit_of_the_list_file_is_noticed_when_lists_are_loaded(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24), replicas=1)
    path = tmp_path / "0" / "sealed"
    facts = index.seal(path)
    lists = tmp_path / "0" / facts.parts[0][0]
    whole = lists.read_bytes()
    starts = [page * list_file.PAGE for page in view_of(index).extent_pages.tolist()]
    for place in sorted({0, 4, 8, 16, 20, 24, 4000, *(starts[i] + 4095 - 270 * i for i in range(12)), len(whole) - 1}):
        _with(lists, whole, place)
        with pytest.raises(Corruption, match=lists.name):
            SpannIndex.open(path, index.config, "l2", rows, mapped=True)
    for length in (0, 100, list_file.PAGE, list_file.PAGE * 3, len(whole) - list_file.PAGE, len(whole) - 1):
        lists.write_bytes(whole[:length])
        with pytest.raises(Corruption, match=lists.name):
            SpannIndex.open(path, index.config, "l2", rows)
    lists.write_bytes(whole)
    assert contents(SpannIndex.open(path, index.config, "l2", rows)) == contents(index)


def test_a_flipped_bit_of_the_list_file_is_noticed_by_the_search_that_reads_it(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24), memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    queries = clustered(4, 24, seed=2)
    wanted = index.search(queries, 10, rows.visibility(), ALL)
    again = SpannIndex.open(path, index.config, "l2", rows)
    file = view_of(again).file
    assert file is not None
    whole = file.path.read_bytes()
    starts = [page * list_file.PAGE for page in view_of(index).extent_pages.tolist()]
    inside = {start + at for start in starts for at in (0, 5, 9, 17, 25, 29, 33, 50, 64, 300, 4095)}
    for place in sorted(inside | set(np.linspace(list_file.PAGE, len(whole) - 1, 100).astype(int).tolist())):
        _with(file.path, whole, place)
        file.verified[:] = 0  # as in a process that has just begun
        with pytest.raises(Corruption, match=f"{file.path.name}.*page {place // list_file.PAGE} "):
            again.search(queries, 10, rows.visibility(), ALL)
    for length in range(list_file.PAGE, len(whole), list_file.PAGE):
        file.path.write_bytes(whole[:length])
        file.verified[:] = 0
        with pytest.raises(Corruption, match=file.path.name):
            again.search(queries, 10, rows.visibility(), ALL)
    file.path.write_bytes(whole)
    assert same(again.search(queries, 10, rows.visibility(), ALL), wanted)


def test_two_whole_extents_in_one_anothers_place_are_noticed(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24), memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "sealed"
    facts = index.seal(path)
    lists = tmp_path / "0" / facts.parts[0][0]
    whole = lists.read_bytes()
    size = list_file.PAGE
    one, two = (int(page) * size for page in view_of(index).extent_pages[:2])
    swapped = bytearray(whole)
    swapped[one : one + size], swapped[two : two + size] = whole[two : two + size], whole[one : one + size]
    lists.write_bytes(swapped)
    again = SpannIndex.open(path, index.config, "l2", rows)
    with pytest.raises(Corruption, match="page"):
        again.search(clustered(4, 24, seed=2), 10, rows.visibility(), ALL)
    assert any("damaged" in line for line in again.check())


def test_a_page_of_an_older_life_of_the_file_changes_nothing(make: Make, tmp_path: Path) -> None:
    """Pages written before a crash, and not sealed, may be whole and of as many entries as those written after it: a
    lost write must not bring them back.
    """
    vectors = clustered(1300, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "one"
    facts = index.seal(path)
    lists = tmp_path / "0" / facts.parts[0][0]
    sealed = facts.parts[0][1]
    rows.append(vectors[:50])
    index.add(1250)
    older = lists.read_bytes()[sealed:]
    rows.delete(np.arange(1200, 1250))
    again = SpannIndex.open(path, index.config, "l2", rows)
    again.remove(rows.sequence)
    rows.append(vectors[:50])
    again.add(rows.row_count)
    again.seal(tmp_path / "0" / "two")
    wanted = again.search(vectors[:50], 10, rows.visibility(), ALL)
    whole = lists.read_bytes()
    lists.write_bytes(whole[:sealed] + older + whole[sealed + len(older) :])
    last = SpannIndex.open(tmp_path / "0" / "two", index.config, "l2", rows)
    with contextlib.suppress(Corruption):
        assert same(last.search(vectors[:50], 10, rows.visibility(), ALL), wanted)


def test_a_page_that_decays_after_its_first_reading_is_not_written_anew(make: Make, tmp_path: Path) -> None:
    """Searches may trust what they have compared once; what is carried into new lists gets a new checksum, and damage
    would be sound from then on.
    """
    vectors = clustered(700, 24)
    rows, index = make(vectors, memory_budget_bytes=0, replicas=1)
    index.search(vectors[:20], 10, rows.visibility(), ALL)
    file = view_of(index).file
    assert file is not None and index.check() == []
    whole = file.path.read_bytes()
    damaged = bytearray(whole)
    for page in view_of(index).extent_pages.tolist():
        damaged[page * list_file.PAGE + list_file.EXTENT_BYTES] ^= 1  # a code
    file.path.write_bytes(damaged)
    rows.append(vectors)
    with pytest.raises(Corruption, match="damaged"):
        index.add(rows.row_count)
    assert any("damaged" in line for line in index.check())


def test_damaged_rows_are_found_by_the_search_that_scores_them(make: Make) -> None:
    vectors = clustered(600, 24)
    rows, index = make(vectors)
    assert index.search(vectors[77:78], 3, rows.visibility(), ALL).rows[0, 0] == 77
    rows.damage(77)
    for _ in range(2):
        with pytest.raises(Corruption, match="row 77"):
            index.search(vectors[77:78], 3, rows.visibility(), ALL)
    assert index.search(vectors[78:79], 1, rows.visibility(), SearchParams(nprobe=1)).counts[0] == 1


@pytest.mark.parametrize("indexed", [0, 500])
def test_damaged_rows_do_not_get_into_lists(make: Make, indexed: int) -> None:
    rows, index = make(clustered(900, 24), indexed=indexed)
    rows.damage(777)
    with pytest.raises(Corruption, match="row 777"):
        index.add(900)
    assert index.indexed_rows == indexed


def test_check_notices_lists_that_are_wrong(make: Make) -> None:
    def broken(words: str, **changes: Callable[[ListsView], Any]) -> None:
        rows, index = make(clustered(700, 24))
        view = view_of(index)
        index.lists.view = replace(view, **{name: change(view) for name, change in changes.items()})
        assert any(words in line for line in index.check()), (words, index.check())
        del rows

    broken("neither in memory", body_offsets=lambda v: np.where(np.arange(v.heads.count) == 1, -1, v.body_offsets))
    broken("no list", lengths=lambda v: np.where(np.arange(v.heads.count) == 1, 0, v.lengths).astype(np.int32))
    broken("in no list", indexed=lambda v: v.indexed + 1)
    broken("are indexed", indexed=lambda v: v.indexed - 1)
    broken("bias", heads=lambda v: replace(v.heads, bias=v.heads.bias + 1))
    broken("not those of its rows", coder=lambda v: replace(v.coder, center=v.coder.center + np.float32(1)))


# -- vacuum --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "replicas"), [(None, 1), (0, None), (5_000, 1)])
def test_a_vacuum_keeps_exactly_the_surviving_rows(
    make: Make, tmp_path: Path, budget: int | None, replicas: int | None
) -> None:
    vectors = clustered(1800, 24)
    rows, index = make(vectors[:1500], memory_budget_bytes=budget, replicas=replicas)
    rows.delete(np.random.default_rng(0).permutation(1500)[:600])
    index.remove(rows.sequence)
    rows.delete(rows.live()[:30])  # died since, and not removed
    live = rows.live()
    mapping = np.full(1500, -1, np.int64)
    mapping[live] = np.arange(len(live))
    fresh = DiskRows(tmp_path / "0" / "rows.1", vectors[live])
    new = index.renumbered(mapping, fresh)
    assert new.indexed_rows == len(live)
    assert_well(new)
    assert {row for line in rows_by_list(new) for row in line} == set(range(len(live)))
    if budget is not None:
        assert resident_bytes(new) <= budget
    queries = clustered(40, 24, seed=9)
    assert_true(new.search(queries, 10, fresh.visibility(), ALL), "l2", queries, fresh)
    assert reached(new, fresh, queries, 10, ALL) > 0.85
    old = index.search(queries, 10, rows.visibility(), ALL)
    assert recall(live[new.search(queries, 10, fresh.visibility(), ALL).rows], old.rows) > 0.97
    fresh.append(vectors[1500:])
    add_all(new, fresh)
    new.seal(tmp_path / "0" / "sealed")
    again = SpannIndex.open(tmp_path / "0" / "sealed", new.config, "l2", fresh)
    assert contents(again) == contents(new)
    fresh.close()


@pytest.mark.parametrize("budget", [0, 40_000])
def test_a_vacuum_under_a_budget_holds_one_batch_of_lists_and_makes_the_lists_of_one_without(
    make: Make, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    batch_bytes = 8 * list_file.PAGE
    monkeypatch.setattr(lists_module, "_BATCH_BYTES", batch_bytes)
    vectors = clustered(3000, 24)
    rows, index = make(vectors, memory_budget_bytes=budget, replicas=2, bits=8)
    mapping = np.full(3000, -1, np.int64)
    mapping[::2] = np.arange(1500)
    rows.delete(np.arange(1, 3000, 2))
    index.remove(rows.sequence)
    fresh = DiskRows(rows.path.with_name("rows.1"), vectors[::2])
    held: list[int] = []

    def watched(view: ListsView, *arguments: Any) -> ListsView:
        view = with_room(view, *arguments)
        held.append(view.arena.used_bytes())
        return view

    monkeypatch.setattr(list_updates, "with_room", watched)
    new = index.renumbered(mapping, fresh)
    assert max(held) <= batch_bytes
    assert len(list(rows.path.parent.glob("lists.*"))) == 2, "the old generation has its lists until the switch"
    assert new.check() == [] and resident_bytes(new) <= budget
    assert (resident_bytes(new) > budget // 2) == (budget > 0), "the budget is made use of"
    held.clear()
    index.config = replace(index.config, memory_budget_bytes=None)
    assert contents(index.renumbered(mapping, fresh)) == contents(new)
    assert max(held) > 4 * batch_bytes, "all of it was one batch: nothing is shown"
    fresh.close()


def test_a_vacuum_of_an_index_without_rows(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(20, 24), indexed=0)
    assert index.renumbered(np.arange(20), rows).indexed_rows == 0
