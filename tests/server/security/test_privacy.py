"""What a tenant's token learns of others, and does to them: nothing. And what the log says of those who try."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import vecdb
from tests.support.server.driver import (
    PATIENCE_S,
    Client,
    Running,
    int_ids,
    names,
    outcome,
    search_request,
    status_of,
    token,
    write_request,
)
from vecdb.v1 import admin_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb_server.logs import RefusalLog
from vecdb_server.security import tokens

DIM = 8
N = 300


class House:
    """Collections: shared, of a and b; private, of b alone; a's tokens reach all collections, but for `bound`."""

    def __init__(self, running: Running, file: Path) -> None:
        self.running, self.file = running, file
        kinds: dict[str, dict[str, Any]] = {
            "admin": {"permission": "admin"},
            "a": {"tenant": "a"},
            "a writes": {"tenant": "a", "permission": "write"},
            "a shares": {"tenant": "a", "permission": "write", "share": True},
            "b writes": {"tenant": "b", "permission": "write"},
            "bound": {"tenant": "a", "collection": "private"},
        }
        self.secrets = {who: token(file, who.replace(" ", "-"), **kind) for who, kind in kinds.items()}
        running.server._tokens.refresh()  # type: ignore[union-attr]
        self.dbs = {who: vecdb.open(f"grpc://{running.address}", token=one) for who, one in self.secrets.items()}
        rng = np.random.default_rng(0)
        self.vectors = rng.normal(size=(N, DIM)).astype(np.float32)
        admin = self.dbs["admin"]
        self.docs = admin.create_collection("shared", DIM, "l2")
        self.docs.upsert(range(N), self.vectors, tenants=[["a"] if i % 10 == 0 else ["b"] for i in range(N)])
        admin.create_collection("private", DIM, "l2").upsert([1], self.vectors[:1], tenants=["b"])

    def of(self, who: str, name: str = "shared") -> vecdb.Collection:
        return self.dbs[who].collection(name)

    def close(self) -> None:
        for db in self.dbs.values():
            db.close()


@pytest.fixture
def house(serving: Callable[..., Running], tmp_path: Path) -> Any:
    file = tmp_path / "tokens.json"
    token(file, "first")
    made = House(serving(tokens=str(file), backups=str(tmp_path / "backups")), file)
    yield made
    made.close()


def refusal(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(vecdb.VecdbError) as caught:
        call()
    return type(caught.value), str(caught.value)


def test_records_under_made_ids_are_the_tenants_own(house: House) -> None:
    house.docs.set_metadata({"secret": 1})
    writer = house.of("a writes")
    assert writer.metadata == writer.config.metadata == {} and house.docs.metadata == {"secret": 1}
    assert writer.add(house.vectors[:2], [{"n": 1}, {"n": 2}]) == [0, 1]  # whatever ids others have
    assert house.of("b writes").add(house.vectors[2]) == 0 and writer.add(house.vectors[0]) == 2
    assert [one.fields for one in writer.get([0, 1])] == [{"n": 1}, {"n": 2}]
    assert house.docs.get(0, owner="a").tenants == ["a"] and house.docs.get(0, owner="b").tenants == ["b"]
    assert writer.insert([1, 5], house.vectors[:2], on_conflict="skip") == 1
    before = house.docs.count()
    for call in (house.of("a writes").clear, lambda: house.of("b writes").set_metadata({})):
        assert refusal(call)[0] is vecdb.PermissionDenied
    assert house.docs.count() == before and house.docs.metadata == {"secret": 1}


# -- what it learns --------------------------------------------------------------------------------


def test_a_collection_that_does_not_know_the_tenant_is_none(house: House) -> None:
    assert house.dbs["a"].collections() == ["shared"]
    assert house.dbs["b writes"].collections() == house.dbs["admin"].collections() == ["private", "shared"]
    assert house.dbs["admin"].collections(tenant="a") == ["shared"]
    with vecdb.open(house.running.server.config.path, read_only=True) as db:
        assert db.collections(tenant="a") == ["shared"] and db.collections(tenant="nobody") == []
    query = house.vectors[0]
    client = Client(house.running.address, house.secrets["a writes"])
    for ask in (
        lambda name: house.dbs["a"].collection(name),
        lambda name: client.nearest(name, query),
        lambda name: client.get(name, 1),
        lambda name: client.count(name),
        lambda name: client.count(name, "a"),
        lambda name: next(
            client.search.StreamSearch(
                iter([search_pb2.StreamSearchRequest(search=search_request(name, query))]), metadata=client.metadata
            )
        ),
    ):
        theirs, nobodys = (said(lambda: ask(name)) for name in ("private", "nothing"))  # noqa: B023
        assert theirs.replace("private", "nothing") == nobodys and "no collection 'nothing'" in nobodys
    client.close()


def said(call: Callable[[], Any]) -> str:
    try:
        return repr(call())
    except grpc.RpcError as error:
        return repr(status_of(error))
    except vecdb.VecdbError as error:
        return f"{type(error).__name__} {error}"


def test_a_collection_is_there_once_the_tenant_has_something_in_it_and_no_longer_than_the_tenant(house: House) -> None:
    private = house.of("b writes", "private")
    writer = Client(house.running.address, house.secrets["a writes"])
    writer.write("private", 7, house.vectors[:1])
    assert house.dbs["a"].collections() == ["private", "shared"] and house.of("a", "private").count() == 1
    house.of("admin", "private").drop_tenant("a")
    assert house.dbs["a"].collections() == ["shared"]
    assert refusal(lambda: house.of("a", "private"))[0] is vecdb.NotFound
    assert private.count() == 1
    writer.close()


def test_a_token_that_is_bound_to_a_collection_knows_of_it(house: House) -> None:
    assert house.dbs["bound"].collections() == ["private"]
    assert house.of("bound", "private").dim == DIM
    assert "no tenant 'a'" in refusal(lambda: house.of("bound", "private").count())[1]


def test_explain_and_sequence_say_nothing_of_others(house: House) -> None:
    reader, admin = house.of("a"), house.docs

    def seen() -> tuple[Any, ...]:
        one = reader.search(house.vectors[0], 1, explain=True)
        many = reader.search(house.vectors[:3], 2, params=vecdb.SearchParams(exact=True))
        mixed = reader.search_mixture([0, 10], 5, explain=True)
        streamed = next(reader.search_stream([house.vectors[0]], 1))
        facts = reader.stats()
        return (
            one.sequence, many.sequence, mixed.sequence, streamed.sequence, facts["sequence"],
            sorted(one.explain), sorted(mixed.explain), {k: v for k, v in facts.items() if k != "bytes_ram"},
        )  # fmt: skip

    before = seen()
    house.of("b writes").upsert(range(900, 1_000), house.vectors[:100])
    assert seen() == before
    assert before[:5] == (0,) * 5 and "reason" not in before[7]
    assert not {"tail_rows", "indexed_rows", "index_state", "recall_measured", "reason"} & {*before[5], *before[6]}
    assert admin.search(house.vectors[0], 1, explain=True).explain["tail_rows"] == N + 100
    assert admin.search(house.vectors[0], 1).sequence == admin.stats()["sequence"] > 0


def test_answers_to_a_tenants_writes_number_no_commits(house: House) -> None:
    client = Client(house.running.address, house.secrets["a shares"])
    row = house.vectors[:1]
    made = client(client.records.Write, write_request("shared", 5_000, row))
    grant = tenants_pb2.GrantRequest(collection="shared", ids=int_ids([5_000]), tenants=names("a"))
    answers = [
        made,
        *client.records.Ingest(
            iter([records_pb2.IngestRequest(write=write_request("shared", 5_001, row))]),
            metadata=client.metadata, timeout=PATIENCE_S,
        ),
        client(client.tenants.Grant, grant),
        client(client.records.Delete, records_pb2.DeleteRequest(collection="shared", ids=int_ids([5_000, 5_001]))),
        client(client.admin.GetServerInfo, admin_pb2.GetServerInfoRequest()),
    ]  # fmt: skip
    assert [one.sequence for one in answers] == [0] * 5 and made.count == 1
    asked = admin_pb2.GetServerInfoRequest(min_sequence=1)  # which would tell by the time it takes
    assert outcome(lambda: client(client.admin.GetServerInfo, asked)) == "PERMISSION_DENIED"
    client.close()


# -- what it does to others ------------------------------------------------------------------------


def test_who_shares_neither_fills_quotas_nor_makes_tenants_and_who_sees_may_leave(house: House) -> None:
    house.docs.create_tenant("q", records_max=2)
    giver = house.of("a shares")
    assert giver.upsert(range(1_000, 1_010), house.vectors[:10], tenants={"q"}) == 10
    secret = token(house.file, "q", tenant="q", permission="write")
    house.running.server._tokens.refresh()  # type: ignore[union-attr]
    reader = vecdb.open(f"grpc://{house.running.address}", token=secret)
    theirs = reader.collection("shared")
    assert theirs.count() == 10 and theirs.upsert([1, 2], house.vectors[:2]) == 2
    assert (
        "tenant 'q' would have 3 records, its limit is 2" in refusal(lambda: theirs.upsert([3], house.vectors[:1]))[1]
    )
    assert theirs.revoke([1_000, 1_001], "q") == 2 and theirs.count() == 10
    assert giver.get([1_000])[0] is not None
    assert refusal(lambda: theirs.revoke([1_000], "q"))[0] is vecdb.NotFound
    assert "keeps its own records" in refusal(lambda: theirs.revoke([1], "q"))[1]
    tenants = list(house.docs.tenants())
    for write in (
        lambda: giver.grant([1_002], "nobody-yet"),
        lambda: giver.grant([1_002], {f"junk{i}" for i in range(50)}),
        lambda: giver.upsert([1_020], house.vectors[:1], tenants=["q", "nobody-yet"]),
        lambda: giver.upsert([1_020], house.vectors[:1], tenants=[["nobody-yet"]]),
    ):
        assert refusal(write)[0] is vecdb.NotFound
    assert list(house.docs.tenants()) == tenants
    reader.close()


def test_a_request_id_of_another_write_is_refused(house: House) -> None:
    writer = house.of("a writes")
    assert writer.upsert([1], house.vectors[:1], request_id="x") == 1
    assert "other content" in refusal(lambda: writer.upsert([2, 3], house.vectors[:2], request_id="x"))[1]
    assert writer.upsert([1], house.vectors[:1], request_id="x") == 1 and writer.get(2) is None


def test_the_name_of_a_backup_is_plain_and_errors_do_not_tell_where_backups_lie(house: House, tmp_path: Path) -> None:
    db = house.dbs["admin"]
    for name in ("a\nb", "a\x1b[31m", "a\u202eb", "a\x7f", "", ".a", "a/b"):
        call = Client(house.running.address, house.secrets["admin"])
        assert outcome(lambda: list(call(call.admin.Backup, admin_pb2.BackupRequest(name=name)))) == "INVALID_ARGUMENT"  # noqa: B023
        call.close()
    db.backup("nightly")
    kind, text = refusal(lambda: db.backup("nightly"))
    assert kind is vecdb.AlreadyExists and "nightly" in text and str(tmp_path) not in text and "/" not in text


# -- what the log says -----------------------------------------------------------------------------


class Lines:
    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.all.append((event, facts))


def test_calls_that_are_not_authenticated_or_are_denied_are_logged_with_peer_and_token(house: House) -> None:
    lines, interceptor = Lines(), house.running.server._interceptor
    interceptor._refusals = RefusalLog(lines)
    secrets = {"wrong": "vdb_wrong", "late": token(house.file, "late", expires=time.time() + 0.001), **house.secrets}
    house.running.server._tokens.refresh()  # type: ignore[union-attr]
    for who in ("wrong", "late", "a"):
        client = Client(house.running.address, secrets[who])
        outcome(lambda: client.create("new", 4))  # noqa: B023
        client.close()
    writer = Client(house.running.address, secrets["a writes"])
    assert outcome(lambda: writer.write("shared", 1, house.vectors[:1], owner="b")) == "PERMISSION_DENIED"
    writer.close()
    assert [(event, facts["caller"]) for event, facts in lines.all] == [
        ("not authenticated", None), ("not authenticated", "late"), ("denied", "a"), ("denied", "a-writes"),
    ]  # fmt: skip
    assert all(facts["peer"].startswith(("ipv4:127.0.0.1:", "ipv6:[::1]:")) for _, facts in lines.all)
    text = json.dumps(lines.all)
    assert "CreateCollection" in text and not any(secret in text for secret in secrets.values())


def test_nobody_fills_the_log() -> None:
    lines, now = Lines(), [0.0]
    log = RefusalLog(lines, lambda: now[0])
    for port in range(1_000):
        log.add("denied", f"ipv4:10.0.0.1:{port}", rpc="x")
    assert Counter(event for event, _ in lines.all) == {
        "denied": log.PEER_LINES,
        "more refusals: they are counted until the minute is over": 1,
    }
    for host in range(1_000):
        log.add("denied", f"ipv6:%5Bfe80::{host}%5D:1", rpc="x")
    assert len(lines.all) == log.LINES + 1 and len(log._lines) <= log.LINES + 1
    assert lines.all[-1][1]["peer"].startswith("ipv6:[fe80::")
    now[0] = 61.0
    log.add("denied", "ipv4:10.0.0.2:1", rpc="x")
    assert lines.all[-2:] == [
        ("refusals were not logged", {"count": 2_000 - log.LINES}),
        ("denied", {"peer": "ipv4:10.0.0.2:1", "rpc": "x"}),
    ]


def test_a_stream_that_outlives_its_token_is_logged(house: House) -> None:
    lines, interceptor = Lines(), house.running.server._interceptor
    interceptor._refusals = RefusalLog(lines)
    secret = token(house.file, "short")
    house.running.server._tokens.refresh()  # type: ignore[union-attr]
    with vecdb.open(f"grpc://{house.running.address}", token=secret) as db:
        docs = db.collection("shared")

        def queries() -> Any:
            yield house.vectors[0]
            tokens.revoke(house.file, "short")
            house.running.server._tokens.refresh()  # type: ignore[union-attr]
            yield house.vectors[1]

        with pytest.raises(vecdb.PermissionDenied):
            list(docs.search_stream(queries(), 1, window=1))
    assert [(event, facts["caller"]) for event, facts in lines.all] == [("not authenticated", "short")]
