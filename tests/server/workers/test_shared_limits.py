"""What bounds callers holds for all processes of a server together: tokens, rates, room, quotas, and whose records
they are. Real processes, two workers.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import vecdb
from tests.support.server.crew import WorkersProcess
from tests.support.server.driver import (
    PATIENCE_S,
    Client,
    int_ids,
    names,
    outcome,
    search_request,
    token,
    write_request,
)
from vecdb.v1 import records_pb2, search_pb2, tenants_pb2
from vecdb_server.security import tokens

DIM = 8
SETTINGS = """
token_requests_max = 6
tenant_streams_max = 3
admin_requests_kept = 0
"""


class House:
    """A server of two workers with tokens, and clients of each of both."""

    def __init__(self, folder: Path) -> None:
        self.tokens = folder / "tokens.json"
        self.admin_token = token(self.tokens, "admin", "admin")
        self.rare = token(self.tokens, "rare", rate=0.001)
        (folder / "vecdb.toml").write_text(SETTINGS, encoding="utf-8")
        options = ("--tokens", str(self.tokens), "--config", str(folder / "vecdb.toml"))
        self.process = WorkersProcess(folder / "db", folder, 2, *options, token=self.admin_token)
        self.process.ready()
        self.admins = self.process.clients()
        self.admins[0].create("docs", DIM)

    def both(self, name: str, permission: str = "read", **scope: object) -> list[Client]:
        """Clients of a new token, one of each worker."""
        return self.process.clients(token(self.tokens, name, permission, **scope))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"))
    with made.process as process:
        yield made
        assert process.end(signal.SIGHUP) == 0
        assert process.log().count('"closed"') == 3  # all of them drained


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(50, DIM)).astype(np.float32)


def test_a_revoked_token_is_refused_by_all_from_then_on(house: House) -> None:
    for i in range(3):
        both = house.both(f"short-{i}", "write")
        assert [one.count("docs") for one in both] == [0, 0]
        tokens.revoke(house.tokens, f"short-{i}")
        assert [outcome(lambda one=one: one.count("docs")) for one in both] == ["UNAUTHENTICATED"] * 2
        said = [outcome(lambda one=one: one.write("docs", 1, np.ones((1, DIM), np.float32))) for one in both]
        assert said == ["UNAUTHENTICATED"] * 2


def test_a_stream_of_a_token_that_was_revoked_ends_at_its_next_message(house: House, rows: np.ndarray) -> None:
    for i in range(2):
        one = house.both(f"streamer-{i}", "write")[i]
        revoked = threading.Event()

        def batches(i: int = i, revoked: threading.Event = revoked) -> Iterator[records_pb2.IngestRequest]:
            yield records_pb2.IngestRequest(batch=0, write=write_request("docs", 900 + i, rows[:1]))
            revoked.wait(PATIENCE_S)
            yield records_pb2.IngestRequest(batch=1, write=write_request("docs", 902, rows[:1]))

        answers = one.records.Ingest(batches(), metadata=one.metadata, timeout=PATIENCE_S)
        assert next(answers).count == 1
        tokens.revoke(house.tokens, f"streamer-{i}")
        revoked.set()
        assert outcome(lambda answers=answers: list(answers)) == "UNAUTHENTICATED"
    assert [len([r for r in one.get("docs", 900, 901, 902) if r]) for one in house.admins] == [2, 2]
    house.admins[0](
        house.admins[0].records.Delete, records_pb2.DeleteRequest(collection="docs", ids=int_ids([900, 901]))
    )


def test_a_rate_is_of_the_token_and_not_of_a_worker(house: House) -> None:
    started = time.monotonic()
    both = house.both("slow", rate=40.0)  # connecting takes some of them
    said = [outcome(lambda one=one: one.count("docs")) for one in both * 60]
    let_in = said.count("OK")
    assert set(said) <= {"OK", "RESOURCE_EXHAUSTED"}  # where calls take long, all of them are let in
    assert let_in <= 40 + 40 * (time.monotonic() - started) + 1


def test_what_one_worker_has_let_in_uses_up_the_rate_for_all(house: House) -> None:
    both = house.both("connected")
    for one in both:
        one.metadata = (("authorization", f"Bearer {house.rare}"),)
    said = [outcome(lambda one=one: one.count("docs")) for one in both * 5]
    assert said == ["OK"] + ["RESOURCE_EXHAUSTED"] * 9


def test_room_for_streams_is_of_the_token_and_not_of_a_worker(house: House) -> None:
    both = house.both("streams")
    end = threading.Event()

    def asking() -> Iterator[search_pb2.StreamSearchRequest]:
        yield search_pb2.StreamSearchRequest(search=search_request("docs", np.ones(DIM, np.float32), 1))
        end.wait(PATIENCE_S)

    held: list[grpc.Call] = []
    try:
        for one in (*both, both[0]):
            held.append(one.search.StreamSearch(asking(), metadata=one.metadata, timeout=PATIENCE_S))
            next(held[-1])  # it is open: one that asks for room meanwhile might take this one's
        for one in both:
            assert outcome(lambda one=one: list(_no_search(one))) == "RESOURCE_EXHAUSTED"
    finally:
        end.set()
        for one in held:
            assert outcome(lambda one=one: list(one)) == "OK"
    ends = time.monotonic() + PATIENCE_S
    while outcome(lambda: list(_no_search(both[1]))) == "RESOURCE_EXHAUSTED":
        assert time.monotonic() < ends


def _no_search(client: Client) -> grpc.Call:
    return client.search.StreamSearch(iter([]), metadata=client.metadata, timeout=PATIENCE_S)


def test_a_quota_is_of_the_tenant_through_any(house: House, rows: np.ndarray) -> None:
    made = tenants_pb2.CreateTenantsRequest(collection="docs", names=["limited"], records_max=10)
    house.admins[0](house.admins[0].tenants.CreateTenants, made)
    both = house.both("limited", "write", tenant="limited")
    written = 0
    for i in range(30):
        written += outcome(lambda i=i: both[i % 2].write("docs", i, rows[:1])) == "OK"
    assert written == 10
    assert [one.count("docs") for one in both] == [10, 10]


def test_tenants_see_their_own_through_any(house: House, rows: np.ndarray) -> None:
    acme, beta = (house.both(name, "write", tenant=name) for name in ("acme", "beta"))
    for i in range(4):
        acme[i % 2].write("docs", i, rows[i : i + 1])
        beta[i % 2].write("docs", i, rows[i + 10 : i + 11])
    for one in (*acme, *beta):
        offset = 0 if one in acme else 10
        assert one.count("docs") == 4
        assert one.nearest("docs", rows[offset + 2], 10)[0] == 2 and len(one.nearest("docs", rows[0], 10)) == 4
        got = one.get("docs", 0, 1, include_vectors=True)
        assert [list(record.tenants) for record in got] == [["acme" if one in acme else "beta"]] * 2
    assert outcome(lambda: acme[0].count("docs", "beta")) == outcome(lambda: acme[0].count("docs", "nobody"))
    shared = {"collection": "docs", "ids": int_ids([1]), "tenants": names("beta")}
    assert outcome(lambda: acme[1](acme[1].tenants.Grant, tenants_pb2.GrantRequest(**shared))) == "NOT_FOUND"


def test_a_page_goes_on_at_another_worker(house: House, rows: np.ndarray) -> None:
    both = house.both("pages", "write", tenant="pages")
    both[0].write("docs", 0, rows)
    seen: list[int] = []
    after, i = "", 0
    while len(seen) < len(rows):
        one = both[i % 2]
        request = records_pb2.ListRequest(collection="docs", batch=7, limit=7, after=after)
        [answer] = one(one.records.List, request)
        seen += [record.int_id for record in answer.records]
        after, i = answer.cursor, i + 1
    assert sorted(seen) == list(range(len(rows))) and i > 2


def test_the_socket_of_the_writer_is_for_the_workers(house: House) -> None:
    lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    inodes = {_link(fd) for fd in Path(f"/proc/{house.process.pids('writer')[0]}/fd").iterdir()}
    [path] = {line.split()[-1] for line in lines if f"socket:[{line.split()[6]}]" in inodes and "/writer-" in line}
    assert Path(path).parent.stat().st_mode & 0o077 == 0
    client = Client(f"unix:{path}", house.admin_token)
    assert outcome(lambda: client.count("docs")) == "UNAUTHENTICATED"
    client.close()


def _link(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""


def test_the_embedded_library_reads_beside_the_workers(house: House, rows: np.ndarray) -> None:
    house.admins[0].create("beside", DIM)
    with vecdb.open(house.process.path, read_only=True) as db:
        docs = db.collection("beside")
        for i in range(4):
            house.admins[i % 2].write("beside", i, rows[i : i + 1])
            assert docs.count() == i + 1
