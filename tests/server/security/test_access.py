"""Every rpc of every service, asked by everybody: nobody gets further than the token goes, and "not yours" looks like
"not there". The table is made from the descriptors: an rpc without a row fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
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
    tenant_lists,
    token,
)
from tests.support.server.rpc_table import DENIED, DIM, MISSING, REFUSED, ROWS, RPCS, VECTORS
from vecdb.v1 import admin_pb2, collections_pb2, common_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb_server.security.auth import NEEDS

WHO = ("none", "wrong", "expired", "tenant", "elsewhere", "reader", "admin")


class House:
    """A server with one token of each kind."""

    def __init__(self, running: Running, tokens: Path) -> None:
        self.running = running
        self.tokens = tokens
        self.secrets = {
            "none": None,
            "wrong": "vdb_wrong",
            "expired": token(tokens, "expired", "admin", expires=time.time() + 0.001),
            "tenant": token(tokens, "tenant", "write", tenant="beta"),
            "elsewhere": token(tokens, "elsewhere", "admin", collection="other"),
            "reader": token(tokens, "reader", "read"),
            "admin": token(tokens, "admin", "admin"),
        }
        running.server._tokens.refresh()  # type: ignore[union-attr]
        self.clients = {who: Client(running.address, secret) for who, secret in self.secrets.items()}

    def furnish(self) -> None:
        """`docs` as the table has it."""
        admin = self.clients["admin"]
        admin.create("docs", DIM, exist_ok=True)
        admin.write("docs", 0, VECTORS, tenants=names("acme"))
        make = tenants_pb2.CreateTenantsRequest(collection="docs", names=["beta"], exist_ok=True)
        admin(admin.tenants.CreateTenants, make)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    from vecdb_server.config import Config

    folder = tmp_path_factory.mktemp("access")
    tokens = folder / "tokens.json"
    token(tokens, "first")
    config = Config(
        str(folder / "db"), "127.0.0.1:0", str(tokens), reflection=True, backups=str(folder), grace_s=5.0
    )  # fmt: skip
    running = Running(config)
    made = House(running, tokens)
    yield made
    for client in made.clients.values():
        client.close()
    running.close()


def ask(client: Client, rpc: str, request: Any) -> Any:
    """Call an rpc by its name; the first answer of one that never ends."""
    method = RPCS[rpc]
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(client.channel, kind)(rpc, lambda one: one.SerializeToString(), lambda raw: raw)
    sent = iter(request) if method.client_streaming else request
    answers = call(sent, metadata=client.metadata, timeout=PATIENCE_S)
    if rpc.endswith("/Watch"):
        first = next(answers)
        answers.cancel()
        return first
    return list(answers) if method.server_streaming else answers


def test_every_rpc_has_a_row_here_and_a_need_in_the_server() -> None:
    assert set(ROWS) == set(RPCS)
    assert set(NEEDS) == set(RPCS)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("rpc", sorted(ROWS))
def test_an_rpc_does_for_each_caller_what_the_table_says(house: House, rpc: str, who: str, tmp_path: Path) -> None:
    house.furnish()
    request, expected = ROWS[rpc]
    if rpc.endswith("/Backup"):
        request = admin_pb2.BackupRequest(name=tmp_path.name)
    assert outcome(lambda: ask(house.clients[who], rpc, request)) == expected[who]


def test_an_rpc_without_a_need_is_denied_to_administrators_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    rpc = "/vecdb.v1.AdminService/GetServerInfo"
    monkeypatch.delitem(NEEDS, rpc)
    assert outcome(lambda: ask(house.clients["admin"], rpc, ROWS[rpc][0])) == DENIED


def test_an_rpc_that_nobody_serves_is_unimplemented(house: House) -> None:
    call = house.clients["admin"].channel.unary_unary("/vecdb.v1.AdminService/Nothing")
    assert outcome(lambda: call(b"", metadata=house.clients["admin"].metadata)) == "UNIMPLEMENTED"
    assert outcome(lambda: call(b"")) == REFUSED


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic {}", "bearer{}", "{}", "Bearer {} x"])
def test_a_header_that_is_no_bearer_token_is_refused(house: House, header: str) -> None:
    metadata = (("authorization", header.format(house.secrets["admin"])),)
    request = admin_pb2.GetServerInfoRequest()
    assert outcome(lambda: house.clients["none"].admin.GetServerInfo(request, metadata=metadata)) == REFUSED


def failure(call: Callable[[], Any]) -> tuple[str, str, str, float | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return status_of(caught.value)


def test_a_collection_of_others_is_one_that_does_not_exist(house: House) -> None:
    house.furnish()
    elsewhere = house.clients["elsewhere"]
    for ask_for in (
        lambda name: elsewhere.nearest(name, VECTORS[0]),
        lambda name: elsewhere.write(name, 0, VECTORS),
        lambda name: elsewhere(elsewhere.collections.GetCollection, collections_pb2.GetCollectionRequest(name=name)),
        lambda name: elsewhere(elsewhere.collections.DropCollection, collections_pb2.DropCollectionRequest(name=name)),
    ):
        theirs, nobodys = failure(lambda: ask_for("docs")), failure(lambda: ask_for("none"))  # noqa: B023
        assert theirs[0] == MISSING and theirs[1].replace("docs", "none") == nobodys[1] and theirs[2] == nobodys[2]
    listed = elsewhere(elsewhere.collections.ListCollections, collections_pb2.ListCollectionsRequest())
    assert list(listed.names) == []


def test_a_tenant_of_others_is_one_that_does_not_exist(house: House) -> None:
    house.furnish()
    beta = house.clients["tenant"]
    beta.write("docs", 900, VECTORS[:3])
    for ask_for in (
        lambda name: beta.nearest("docs", VECTORS[0], tenants=[name]),
        lambda name: beta.count("docs", "beta", name),
        lambda name: beta.write("docs", 900, VECTORS[:1], tenants=names("beta", name)),
        lambda name: beta.write("docs", 900, VECTORS[:1], tenants_each=tenant_lists([name])),
        lambda name: beta(
            beta.tenants.GetTenantStats, tenants_pb2.GetTenantStatsRequest(collection="docs", tenant=name)
        ),
    ):
        theirs, nobodys = failure(lambda: ask_for("acme")), failure(lambda: ask_for("none"))  # noqa: B023
        assert theirs[0] == MISSING and theirs[1].replace("acme", "none") == nobodys[1] and theirs[2] == nobodys[2]
    page = beta(beta.tenants.ListTenants, tenants_pb2.ListTenantsRequest(collection="docs"))
    assert list(page.names) == ["beta"]


def test_what_the_engine_says_of_a_tenant_that_is_not_there_is_what_the_server_says(house: House) -> None:
    house.furnish()
    from_engine = failure(lambda: house.clients["admin"].count("docs", "no one"))
    from_server = failure(lambda: house.clients["tenant"].count("docs", "no one"))
    assert from_engine == from_server


def test_a_tenant_sees_what_is_its_own_or_was_granted_to_it_and_its_own_name_alone(house: House) -> None:
    house.furnish()
    admin, beta = house.clients["admin"], house.clients["tenant"]
    admin.write("docs", 30, VECTORS[:1], tenants=names("acme", "beta"))
    beta.write("docs", 30_000, VECTORS[1:2])
    assert beta.count("docs") == beta.count("docs", "beta") == admin.count("docs", "beta")
    seen = beta.get("docs", 30, 31, 30_000)
    assert [one is not None for one in seen] == [True, False, True]
    assert [list(one.tenants) for one in seen if one is not None] == [["beta"], ["beta"]]
    assert {one.owner for one in seen if one is not None} <= {"", "beta"}
    request = records_pb2.ListRequest(collection="docs")
    for message in beta(beta.records.List, request):
        assert all(list(one.tenants) == ["beta"] for one in message.records)
    found = beta.nearest("docs", VECTORS[5], 50)
    assert set(found) <= {30, 30_000, 0, 1, 900, 901, 902} and 5 not in found


def test_a_grantee_can_neither_change_nor_pass_on_a_record(house: House) -> None:
    house.furnish()
    admin, beta = house.clients["admin"], house.clients["tenant"]
    admin.write("docs", 40, VECTORS[:1], tenants=names("acme", "beta"))
    delete = records_pb2.DeleteRequest(collection="docs", ids=int_ids([40]))
    assert beta(beta.records.Delete, delete).count == 0
    assert admin.get("docs", 40)[0] is not None
    owned = records_pb2.DeleteRequest(collection="docs", ids=int_ids([40]), owner="acme")
    assert outcome(lambda: beta(beta.records.Delete, owned)) == DENIED
    grant = tenants_pb2.GrantRequest(collection="docs", ids=int_ids([40]), tenants=names("beta"))
    assert outcome(lambda: beta(beta.tenants.Grant, grant)) == MISSING
    assert beta.get("docs", 40, owner="")[0] is not None


def test_a_revoke_that_returned_is_seen_by_the_next_search(house: House) -> None:
    house.furnish()
    admin, beta = house.clients["admin"], house.clients["tenant"]
    admin.write("docs", 45, VECTORS[45:46], tenants=names("beta"))
    assert beta.nearest("docs", VECTORS[45], 1) == [45]
    revoke = tenants_pb2.RevokeRequest(collection="docs", ids=int_ids([45]), tenants=names("beta"))
    assert admin(admin.tenants.Revoke, revoke).count == 1
    assert 45 not in beta.nearest("docs", VECTORS[45], 50)
    assert beta.get("docs", 45) == [None]


def test_a_write_that_names_no_tenants_leaves_lists_as_they_are_and_makes_new_records_the_tenants_own(
    house: House,
) -> None:
    house.furnish()
    admin = house.clients["admin"]
    sharing = Client(house.running.address, token(house.tokens, "sharing", "write", tenant="gamma", share=True))
    house.running.server._tokens.refresh()  # type: ignore[union-attr]
    sharing.write("docs", 60, VECTORS[:2], tenants=names("acme"))
    sharing.write("docs", 60, VECTORS[2:5])  # two that are there, one that is new
    lists = [list(one.tenants) for one in admin.get("docs", 60, 61, 62, owner="gamma")]
    assert lists == [["acme", "gamma"], ["acme", "gamma"], ["gamma"]]
    sharing.write("docs", 60, VECTORS[2:5], tenants=names())
    assert [list(one.tenants) for one in admin.get("docs", 60, 61, 62, owner="gamma")] == [["gamma"]] * 3
    own = tenants_pb2.RevokeRequest(collection="docs", ids=int_ids([60]), tenants=names("gamma"))
    assert outcome(lambda: sharing(sharing.tenants.Revoke, own)) == "INVALID_ARGUMENT"
    sharing.close()


def test_a_revoke_just_before_a_write_that_names_no_tenants_is_not_undone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.furnish()
    admin = house.clients["admin"]
    sharing = Client(house.running.address, token(house.tokens, "racing", "write", tenant="delta", share=True))
    house.running.server._tokens.refresh()  # type: ignore[union-attr]
    sharing.write("docs", 70, VECTORS[:1], tenants=names("acme"))
    prepare = vecdb.Collection.prepare

    def overtaken(docs: vecdb.Collection, *arguments: Any, **settings: Any) -> Callable[[], int]:
        write = prepare(docs, *arguments, **settings)
        docs.revoke([70], ["acme"], owner="delta")
        return write

    monkeypatch.setattr(vecdb.Collection, "prepare", overtaken)
    sharing.write("docs", 70, VECTORS[1:3])  # one that is there, one that is new
    assert [list(one.tenants) for one in admin.get("docs", 70, 71, owner="delta")] == [["delta"]] * 2
    sharing.close()


def test_a_mixture_under_a_tenants_token_is_of_what_the_tenant_sees(house: House) -> None:
    house.furnish()
    admin, beta = house.clients["admin"], house.clients["tenant"]
    admin.write("docs", 10, VECTORS[10:20], tenants=names("acme", "beta"))

    def mixture(*ids: int) -> Any:
        query = search_pb2.MixtureQuery(positives=int_ids(ids))
        return beta(beta.search.Search, search_pb2.SearchRequest(collection="docs", mixture=query, limit=5)).ids

    assert set(mixture(10, 11).ints.values) <= {*range(12, 20), 30, 30_000, 0, 1, 900, 901, 902}
    assert outcome(lambda: mixture(10, 25)) == MISSING


def test_a_token_that_is_revoked_is_refused_and_its_streams_end(house: House) -> None:
    house.furnish()
    secret = token(house.tokens, "short-lived")
    refresh = house.running.server._tokens.refresh  # type: ignore[union-attr]
    refresh()
    client = Client(house.running.address, secret)
    assert client.count("docs") >= 50
    from vecdb_server.security import tokens

    sent = iter_until_told()
    answers = client.search.StreamSearch(sent.requests(), metadata=client.metadata, timeout=PATIENCE_S)
    sent.send(search_pb2.StreamSearchRequest(search=search_request("docs", VECTORS[0])))
    next(answers)
    tokens.revoke(house.tokens, "short-lived")
    assert refresh()
    assert outcome(lambda: client.count("docs")) == REFUSED
    sent.send(search_pb2.StreamSearchRequest(search=search_request("docs", VECTORS[0])))
    assert outcome(lambda: next(answers)) == REFUSED
    sent.end()
    client.close()


class iter_until_told:
    """Requests of a stream, sent one by one."""

    def __init__(self) -> None:
        import queue

        self._queue: Any = queue.SimpleQueue()

    def requests(self) -> Iterator[Any]:
        return iter(self._queue.get, None)

    def send(self, request: Any) -> None:
        self._queue.put(request)

    def end(self) -> None:
        self._queue.put(None)


def test_a_request_that_sets_a_filter_is_told_that_there_are_none(house: House) -> None:
    house.furnish()
    request = search_request("docs", VECTORS[0], filter=common_pb2.Filter(expression="a = 1"))
    admin = house.clients["admin"]
    code, message, reason, _ = failure(lambda: admin(admin.search.Search, request))
    assert (code, reason) == (
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
    ) and "filters on fields do not exist yet" in message


def test_hits_tell_a_tenant_which_records_are_its_own_and_no_other_owner(house: House) -> None:
    house.furnish()
    admin, tenant = house.clients["admin"], house.clients["tenant"]
    admin.create("owned", DIM, exist_ok=True)
    admin.write("owned", 0, VECTORS[:1], owner="gamma", tenants=names("beta"))
    tenant.write("owned", 0, VECTORS[1:2])
    for at in (0, 1):
        request = search_request("owned", VECTORS[at], limit=1, tenants=["beta"])
        seen = [list(client(client.search.Search, request).owners) for client in (admin, tenant, tenant)]
        assert seen == ([["gamma"], [], []] if at == 0 else [["beta"]] * 3)
