"""A placement: slots of ids and owners, shards of slots, and one object that many change."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import validate
from vecdb.cluster.placement import KEY, Placement, Shard, bucket_url, cluster_bucket
from vecdb.cluster.slots import SLOTS, slot_of_text, slots_of
from vecdb.replication.bucket import Bucket


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return cluster_bucket(f"cluster://{tmp_path}/c", conditional=True)


def splitmix(value: int) -> int:
    """The finaliser, once more, in Python's ints."""
    mask = (1 << 64) - 1
    value &= mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_slots_of_ints_are_as_written_down() -> None:
    ids = [0, 1, 2, -1, 2**63 - 1, -(2**63), 123_456_789]
    found = slots_of(validate.ids(ids)).tolist()
    assert found == [splitmix(one) % SLOTS for one in ids]
    assert found == [0, 1509, 1162, 3451, 3773, 2442, 3424]  # stored: these never change


def test_slots_of_texts_and_owners_are_as_written_down() -> None:
    ids = ["a", "b", "ä", "x" * 256]
    expected = [int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "little") % 4096 for one in ids]
    assert slots_of(validate.ids(ids)).tolist() == expected
    assert slots_of(validate.ids([1, 2, 3]), b"a").tolist() == [slot_of_text(b"a")] * 3 == expected[:1] * 3
    assert slot_of_text(b"a") == 2112  # stored: this never changes


@pytest.mark.parametrize(
    "ids", [np.arange(100_000), np.arange(0, 1 << 40, 1 << 24), [f"doc-{i}" for i in range(20_000)]]
)
def test_slots_are_even(ids: Any) -> None:
    counts = np.bincount(slots_of(validate.ids(ids)), minlength=SLOTS)
    expected = counts.sum() / SLOTS
    assert ((counts - expected) ** 2 / expected).sum() < SLOTS + 6 * np.sqrt(2 * SLOTS)  # chi squared


@pytest.mark.parametrize("shards", [1, 2, 5, 256])
def test_even_shards_have_about_as_many_slots(shards: int) -> None:
    made = Placement.even(shards)
    counts = np.bincount(made.table, minlength=shards)
    assert counts.sum() == SLOTS and counts.max() - counts.min() <= 1
    assert made.serving == tuple(range(shards))
    assert [made.shard_of(slot) for slot in (0, SLOTS - 1)] == [0, shards - 1]


def test_a_placement_is_read_as_it_was_written(bucket: Bucket) -> None:
    made = Placement.even(3).create(bucket)
    assert made.epoch == 1 and Placement.read(bucket) == made
    changed = Placement.change(bucket, lambda one: one.with_writer(1, "grpc://a:1").with_copies(1, ("grpc://b:2",)))
    assert Placement.read(bucket) == changed
    assert changed.epoch == 2
    assert changed.shards[1] == Shard("shard-1", "grpc://a:1", ("grpc://b:2",))
    promoted = Placement.change(bucket, lambda one: one.with_writer(1, "grpc://b:2"))
    assert promoted.shards[1].servers == ("grpc://b:2",)
    assert Placement.change(bucket, lambda one: one.with_writer(1, "grpc://b:2")).epoch == promoted.epoch
    table = promoted.table.copy()
    table[:10] = 2
    moved = Placement.change(bucket, lambda one: one.with_slots(table))
    assert moved.table.tolist() == table.tolist() == Placement.read(bucket).table.tolist()
    with pytest.raises(vecdb.AlreadyExists):
        Placement.even(2).create(bucket)


def test_no_change_is_lost_where_many_change_at_once(bucket: Bucket) -> None:
    Placement.even(8).create(bucket)

    def change(number: int) -> None:
        for step in range(3):
            Placement.change(bucket, lambda one, step=step: one.with_writer(number, f"grpc://host:{1 + step}"))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Placement.read(bucket)
    assert [shard.writer for shard in found.shards.values()] == ["grpc://host:3"] * 8
    assert found.epoch == 1 + 3 * 8


def test_where_there_is_none_it_is_not_found(bucket: Bucket) -> None:
    with pytest.raises(vecdb.NotFound, match=KEY):
        Placement.read(bucket)
    with pytest.raises(vecdb.NotFound):
        Placement.change(bucket, lambda one: one)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "epoch": 1, "slots": [[0, 4095]], "shards": {"0": {"log": "a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [[1, 4096]], "shards": {"0": {"log": "a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [[0, 4096]], "shards": {"0": {"log": "a"}, "1": {"log": "a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [[0, 4096]], "shards": {"zero": {"log": "a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [[0, 4096]], "shards": {"0": {"log": "../a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [[0, 4096]], "shards": {"0": {"log": "a", "writer": "http://a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [[0, 4097], [0, -1]], "shards": {"0": {"log": "a"}}}',
        b'{"format": 1, "epoch": 1, "slots": [], "shards": {}}',
    ],
)
def test_what_is_no_placement_is_damage(bucket: Bucket, data: bytes) -> None:
    bucket.put(KEY, data)
    with pytest.raises(vecdb.Corruption, match="no placement"):
        Placement.read(bucket)


def test_a_newer_format_says_so(bucket: Bucket) -> None:
    bucket.put(KEY, b'{"format": 2, "whatever": true}')
    with pytest.raises(vecdb.Unavailable, match="newer"):
        Placement.read(bucket)


def test_a_change_that_makes_no_placement_changes_nothing(bucket: Bucket) -> None:
    made = Placement.even(2).create(bucket)
    for change in (
        lambda one: one.with_writer(0, "http://a"),
        lambda one: one.with_writer(7, "grpc://a"),
        lambda one: one.with_shard(2, Shard("shard-0")),
        lambda one: one.with_slots(np.full(SLOTS, 9)),
    ):
        with pytest.raises(vecdb.InvalidArgument):
            Placement.change(bucket, change)
    assert Placement.read(bucket) == made


def test_addresses_of_clusters() -> None:
    assert bucket_url("cluster://s3/bucket/some/prefix") == "s3://bucket/some/prefix"
    assert bucket_url("cluster:///data/c") == bucket_url("cluster://file/data/c") == "file:///data/c"
    assert bucket_url("cluster://memory/name") == "memory://name"
    for url in (
        "cluster://",
        "cluster:///",
        "cluster://s3",
        "cluster://bucket/prefix",
        "grpc://a",
        "cluster://http/a/b",
    ):
        with pytest.raises(vecdb.InvalidArgument, match="cluster://s3/bucket"):
            bucket_url(url)
