"""Tokens and TLS of a cluster: they are those of all shards, and a tenant writes to the shard that has its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.support.cluster.in_process import InProcessCluster
from tests.support.server.certificates import Authority, write
from tests.support.server.driver import token
from vecdb.cluster.placement import Placement
from vecdb.cluster.slots import slot_of_text

VECTORS = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens.json"


@pytest.fixture(scope="module")
def admin(tokens: Path) -> str:
    return token(tokens, "operator", "admin")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, tokens: Path, admin: str) -> Iterator[InProcessCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    authority = Authority("tests")
    (folder / "ca.pem").write_bytes(authority.pem)
    certificate, key = write(folder, authority.issue("shard"))
    made = InProcessCluster(folder, 3, tokens=str(tokens), tls_cert=certificate, tls_key=key)
    yield made
    made.close()


def opened(cluster: InProcessCluster, secret: str | None) -> vecdb.Database:
    return cluster.open(token=secret, tls=str(cluster.folder / "ca.pem"))


def test_token_and_certificate_are_those_of_all_shards(cluster: InProcessCluster, admin: str) -> None:
    with opened(cluster, admin) as db:
        docs = db.create_collection("docs", 4, "l2", exist_ok=True)
        docs.upsert(range(40), VECTORS)
        assert docs.search(VECTORS[7], 1).ids.tolist() == [7] and docs.count() == 40
    for secret in (None, "wrong"):
        with pytest.raises(vecdb.PermissionDenied):
            opened(cluster, secret)
    with pytest.raises(vecdb.Unavailable, match="TLS"):
        cluster.open(token=admin)


def test_a_token_goes_to_no_other_machine_in_plain_text_whatever_is_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.cluster.asking.members._AT_ONCE_S", 0.0)
    made = InProcessCluster(tmp_path, 1)
    try:
        with made.open(token="secret") as db:
            docs = db.create_collection("docs", 4, "l2")
            docs.upsert([1], VECTORS[:1])
            made.place(lambda one: one.with_copies(0, ("grpc://203.0.113.7:7711",)))
            members = db._backend._shards.members
            assert members.refresh().shards[0].copies and members.copies(0) == []
            assert docs.count() == 1
            with pytest.raises(vecdb.InvalidArgument, match=r"203\.0\.113\.7.*plain text"):
                made.open(token="secret")
    finally:
        made.close()


def test_a_tenants_token_writes_to_the_shard_of_its_tenant(cluster: InProcessCluster, tokens: Path, admin: str) -> None:
    secret = token(tokens, "acme", "write", tenant="acme")
    home = Placement.read(cluster.bucket).shard_of(slot_of_text(b"acme"))
    with opened(cluster, admin) as db, opened(cluster, secret) as own:
        docs = db.create_collection("shared", 4, "l2")
        docs.create_tenant("acme", records_max=15)
        docs.upsert(range(10), VECTORS[:10] + 1, tenants="acme")
        docs.revoke([0, 1, 2, 3, 4], "acme")
        docs.upsert([20], VECTORS[20:21])
        mine = own.collection("shared")
        assert mine.upsert(range(5), VECTORS[:5]) == 5 and mine.add(VECTORS[5]) == 5
        assert [one and one.owner for one in mine.get([0, 5, 7, 20])] == ["acme", "acme", "", None]
        assert mine.get(0).owner == "acme" and mine.get(9).owner == "" and mine.get(20) is None
        assert docs.get(range(6), owner="acme")[5] is not None
        parts = docs.stats()["shards"]
        assert sum(one["live"] for one in parts.values()) == 17 and parts[str(home)]["live"] >= 6
        assert mine.count() == 11 and sorted(mine.search(VECTORS[0], 20).ids.tolist()) == [
            0,
            1,
            2,
            3,
            4,
            5,
            5,
            6,
            7,
            8,
            9,
        ]
        assert mine.delete([0]) == 1 and mine.update([1], fields=[{"a": 1}]) == 1
        docs.upsert([30, 31], VECTORS[:2], tenants="acme", owner="other")
        assert mine.count() == 12 and mine.revoke([30, 31], "acme") == 2 and mine.count() == 10
        assert docs.get(30, owner="other").tenants == []
        with pytest.raises(vecdb.NotFound, match="that others share"):
            mine.revoke([1], "acme")
        with pytest.raises(vecdb.LimitExceeded):
            mine.upsert(range(100, 120), VECTORS[:20])
        with pytest.raises(vecdb.PermissionDenied):
            mine.upsert([1], VECTORS[:1], owner="other")
        with pytest.raises(vecdb.PermissionDenied):
            own.wait_for({0: 1})
        assert mine.delete(filter="true") == 5 and docs.count() == 13
