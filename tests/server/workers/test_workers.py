"""Several processes that are one server: what is written through any is read through all, and they agree on names,
counts and who they are. Real processes, two workers.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import vecdb
from tests.support.server.crew import WorkersProcess
from tests.support.server.driver import PATIENCE_S, Client, int_ids, names, outcome, search_request, write_request
from tests.support.server.process import Process
from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2

DIM = 8


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkersProcess]:
    folder = tmp_path_factory.mktemp("crew")
    (folder / "backups").mkdir()
    options = ("--metrics", "127.0.0.1:0", "--backups", str(folder / "backups"))
    with WorkersProcess(folder / "db", folder, 2, *options) as process:
        process.ready()
        yield process
        assert process.end() == 0
    with vecdb.open(folder / "db", read_only=True) as db:
        assert db.check() == []


@pytest.fixture(scope="module")
def both(crew: WorkersProcess) -> list[Client]:
    """A client of each worker."""
    return crew.clients()


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(200, DIM)).astype(np.float32)


# -- reads and writes ------------------------------------------------------------------------------


def test_what_was_written_through_one_is_read_through_the_other_at_once(both: list[Client], rows: np.ndarray) -> None:
    both[0].create("own-writes", DIM)
    for i, row in enumerate(rows[:60]):
        writer, reader = both[i % 2], both[1 - i % 2]
        assert writer.write("own-writes", i, row[None]) == 1
        assert reader.count("own-writes") == i + 1
        assert reader.nearest("own-writes", row, 1) == [i]
        if i % 5 == 4:
            request = records_pb2.DeleteRequest(collection="own-writes", ids=int_ids([i]))
            assert writer(writer.records.Delete, request).count == 1
            assert reader.get("own-writes", i) == [None]
            writer.write("own-writes", i, row[None])


def test_answers_are_those_of_brute_force_through_each(
    crew: WorkersProcess, both: list[Client], rows: np.ndarray
) -> None:
    with vecdb.open(f"grpc://localhost:{crew.ports()[0]}") as far:
        far.create_collection("brute", DIM, "l2").upsert(range(len(rows)), rows)
    for query in rows[:20] + np.float32(0.01):
        wanted = np.argsort(((rows - query) ** 2).sum(axis=1), kind="stable")[:10].tolist()
        assert [one.nearest("brute", query, 10) for one in both] == [wanted, wanted]


def test_a_bulk_load_goes_through_as_a_stream(crew: WorkersProcess, both: list[Client]) -> None:
    vectors = np.random.default_rng(5).normal(size=(20_000, DIM)).astype(np.float32)
    with vecdb.open(f"grpc://localhost:{crew.ports()[0]}") as far:
        docs = far.create_collection("bulk", DIM)
        assert (
            docs.upsert(range(len(vectors)), vectors, [{"n": n} for n in range(len(vectors))], atomic=False) == 20_000
        )
    assert [one.count("bulk") for one in both] == [20_000, 20_000]
    answers = both[1].records.Ingest(
        records_pb2.IngestRequest(batch=i, write=write_request("bulk", i, vectors[:1])) for i in range(5)
    )
    assert [one.batch for one in answers] == list(range(5))
    broken = iter([records_pb2.IngestRequest(batch=0, write=write_request("nowhere", 0, vectors[:1]))])
    assert outcome(lambda: list(both[0].records.Ingest(broken))) == "NOT_FOUND"


def test_searches_of_a_stream_are_answered_by_the_worker(both: list[Client], rows: np.ndarray) -> None:
    both[0].create("stream", DIM)
    both[0].write("stream", 0, rows)
    asked = [search_pb2.StreamSearchRequest(search=search_request("stream", row, 1)) for row in rows[:50]]
    for one in both:
        found = [answer.hits.ids.ints.values[0] for answer in one.search.StreamSearch(iter(asked))]
        assert found == list(range(50))


# -- names, tenants, long operations ---------------------------------------------------------------


def test_names_mean_the_same_to_all_from_the_answer_on(both: list[Client], rows: np.ndarray) -> None:
    first, second = both
    for name, count in (("name-a", 3), ("name-b", 5)):
        first.create(name, DIM)
        first.write(name, 0, rows[:count])
    for i in range(6):
        caller, other = both[i % 2], both[1 - i % 2]
        target, count = (("name-a", 3), ("name-b", 5))[i % 2]
        caller(caller.collections.SetAlias, collections_pb2.SetAliasRequest(alias="both", collection=target))
        assert other.count("both") == count == caller.count("both")
    first(first.collections.RenameCollection, collections_pb2.RenameCollectionRequest(name="name-a", new_name="name-c"))
    assert outcome(lambda: second.count("name-a")) == "NOT_FOUND" and second.count("name-c") == 3
    first(first.collections.DropCollection, collections_pb2.DropCollectionRequest(name="name-c"))
    assert outcome(lambda: second.count("name-c")) == "NOT_FOUND"
    second.create("name-c", DIM)
    assert first.count("name-c") == 0


def test_grants_and_revokes_count_for_all_from_the_answer_on(both: list[Client], rows: np.ndarray) -> None:
    both[0].create("shared", DIM)
    both[0].write("shared", 0, rows[:10], tenants=names("acme"))
    for i in range(6):
        caller, other = both[i % 2], both[1 - i % 2]
        pairs = {"collection": "shared", "ids": int_ids([i]), "tenants": names("beta")}
        caller(caller.tenants.Grant, tenants_pb2.GrantRequest(**pairs))
        assert other.nearest("shared", rows[i], 1, tenants=["beta"]) == [i]
        caller(caller.tenants.Revoke, tenants_pb2.RevokeRequest(**pairs))
        assert other.nearest("shared", rows[i], 5, tenants=["beta"]) == []
    assert both[1].count("shared", "acme") == 10


def test_long_operations_report_through_a_worker(crew: WorkersProcess, both: list[Client], rows: np.ndarray) -> None:
    both[0].create("long", DIM)
    both[0].write("long", 0, rows)
    optimized = both[1](
        both[1].collections.OptimizeCollection, collections_pb2.OptimizeCollectionRequest(collection="long")
    )
    assert optimized
    checked = both[0](both[0].admin.CheckDatabase, admin_pb2.CheckDatabaseRequest())
    assert checked[-1].done and not checked[-1].problems
    both[0](both[0].admin.Backup, admin_pb2.BackupRequest(name="one"))
    with vecdb.open(f"grpc://localhost:{crew.ports()[0]}") as far:
        assert far.collection("long").stats()["live"] == len(rows)


def test_errors_are_those_of_the_writer_and_tell_nothing_of_it(both: list[Client], rows: np.ndarray) -> None:
    client = both[0]
    client.create("errors", DIM)
    with pytest.raises(Exception) as caught:
        client.write("errors", 0, rows[:, :3])
    assert "INVALID_ARGUMENT" in str(caught.value.code()) and "dim" in caught.value.details()  # type: ignore[attr-defined]
    assert outcome(lambda: client.create("errors", DIM)) == "ALREADY_EXISTS"


# -- one server ------------------------------------------------------------------------------------


def test_it_says_which_processes_it_is(crew: WorkersProcess, both: list[Client]) -> None:
    facts = json.loads(both[0](both[0].admin.GetDatabaseStats, admin_pb2.GetDatabaseStatsRequest()).stats_json)
    found = {one["pid"]: one["role"] for one in facts["processes"]}
    assert sorted(found.values()) == ["supervisor", "worker", "worker", "writer"]
    assert [pid for pid, role in found.items() if role == "supervisor"] == [crew.process.pid]
    assert sorted(pid for pid, role in found.items() if role == "worker") == sorted(crew.pids("worker"))
    assert facts["read_only"] is False


def test_metrics_and_health_are_of_the_whole(crew: WorkersProcess, both: list[Client], rows: np.ndarray) -> None:
    rpc = "vecdb.v1.RecordService/Count"
    before = _requests(crew, rpc)
    both[0].create("metrics", DIM)
    for one in both:
        for _ in range(5):
            one.count("metrics")
        status = health_pb2_grpc.HealthStub(one.channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert status.status == health_pb2.HealthCheckResponse.SERVING
    assert _requests(crew, rpc) == before + 10
    both[0].write("metrics", 0, rows)
    assert 'vecdb_collection_records{collection="metrics"} 200.0' in _page(crew)
    idle = ('vecdb_jobs_queued{pool="kernels"} 0.0', "vecdb_streams_held 0.0")
    ends = time.monotonic() + PATIENCE_S
    while not all(line in (page := _page(crew)) for line in idle):  # what tests before this one left may be ending
        assert time.monotonic() < ends, page


def _page(crew: WorkersProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{crew.ports(2)[1]}/metrics") as page:
        found: str = page.read().decode()
    return found


def _requests(crew: WorkersProcess, rpc: str) -> float:
    lines = [
        line for line in _page(crew).splitlines() if line.startswith("vecdb_requests_total") and f'"{rpc}"' in line
    ]
    return sum(float(line.split()[-1]) for line in lines)


def test_no_other_server_shares_its_port_or_its_directory(crew: WorkersProcess, tmp_path: Path) -> None:
    port = crew.ports()[0]
    for workers in ("1", "2"):
        with Process(tmp_path / "other", tmp_path, "--workers", workers, listen=f"127.0.0.1:{port}") as second:
            assert second.process.wait(PATIENCE_S) == 1
            assert f"cannot listen on 127.0.0.1:{port}" in second.log() and "Traceback" not in second.log()
    with Process(crew.path, tmp_path, "--workers", "2") as third:
        assert third.process.wait(PATIENCE_S) == 1
        assert str(crew.pids("writer")[0]) in third.log() and "Traceback" not in third.log()
