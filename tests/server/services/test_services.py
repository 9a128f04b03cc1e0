"""What the rpcs do: answers equal the embedded ones, streams keep their order and their bound, long work stops when
nobody waits for it, and errors say what happened and nothing of the inside.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
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
    write_request,
)
from vecdb.v1 import admin_pb2, collections_pb2, common_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb.wire.arrays import vectors_message
from vecdb.wire.search_response import hits_of
from vecdb_server.services.request_cache import CachedRequest

Serving, Calling = Callable[..., Running], Callable[..., Client]


@pytest.fixture
def client(running: Running, calling: Calling, vectors: np.ndarray) -> Client:
    """Connected, with 200 records in `docs`."""
    made = calling(running)
    made.create("docs", vectors.shape[1], metric=collections_pb2.METRIC_L2)
    fields = common_pb2.FieldMaps(json=[f'{{"n": {i}, "even": {str(i % 2 == 0).lower()}}}' for i in range(200)])
    made.write("docs", 0, vectors, fields=fields)
    return made


def failure(call: Callable[[], Any]) -> tuple[str, str, str, float | None]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return status_of(caught.value)


# -- searches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 2, 17])
@pytest.mark.parametrize("select", [None, (), ("n",)])
def test_a_search_gives_the_hits_of_the_embedded_search(
    running: Running, client: Client, vectors: np.ndarray, queries: int, select: tuple[str, ...] | None
) -> None:
    request = search_request("docs", vectors[:queries] + 0.1, 5, include_vectors=True)
    if select is not None:
        request.fields.SetInParent()
        request.fields.names.extend(select)
    docs = running.server.context.db.collection("docs")
    query = vectors[0] + 0.1 if queries == 1 else vectors[:queries] + 0.1
    expected = docs.search(query, 5, include_vectors=True, fields=select)
    for _ in range(3):  # on a thread, then where the message came in
        message = client(client.search.Search, request)
        hits = hits_of(message, 5, "l2", queries == 1, select)
        assert np.array_equal(hits.ids, expected.ids) and np.array_equal(hits.distances, expected.distances)
        assert np.array_equal(hits.vectors, expected.vectors) and hits.fields == expected.fields  # type: ignore[arg-type]
        assert hits.sequence == expected.sequence


def test_fields_come_as_json_where_they_are_asked_for_so(client: Client, vectors: np.ndarray) -> None:
    message = client(client.search.Search, search_request("docs", vectors[4], 1, fields_as_json=True))
    assert msgspec.json.decode(message.fields.json[0]) == {"n": 4, "even": True}


def test_an_explained_search_explains_itself(client: Client, vectors: np.ndarray) -> None:
    message = client(client.search.Search, search_request("docs", vectors[4], 1, explain=True))
    assert msgspec.json.decode(message.explain_json)["plan"]


@pytest.mark.parametrize("us", [1_000.0, 5_000.0, 50_000.0])
def test_scans_that_wait_together_get_each_its_own_answer(
    running: Running, client: Client, vectors: np.ndarray, us: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    answer_batch = CachedRequest.answer_batch
    monkeypatch.setattr(
        CachedRequest, "answer_batch", lambda self, queries: seen.append(len(queries)) or answer_batch(self, queries)
    )
    monkeypatch.setattr(
        "vecdb_server.executors.LatencyEstimate.query_us",
        property(lambda self: us, lambda self, value: None),
        raising=False,
    )
    kernels = running.server.context.kernels
    gate = threading.Event()
    for _ in range(len(kernels)):
        asyncio.run_coroutine_threadsafe(kernels.run("test", lambda stop: gate.wait(PATIENCE_S)), running.loop)
    running.until(lambda: kernels.busy == len(kernels))
    params = search_pb2.SearchParams(exact=True)
    coming = [
        client.search.Search.future(search_request("docs", vectors[i], 1, params=params), timeout=PATIENCE_S)
        for i in range(20)
    ]
    running.until(lambda: kernels.queued == 20)
    gate.set()
    assert [one.result().ids.ints.values[0] for one in coming] == list(range(20))
    assert max(seen, default=0) <= 8 and bool(seen) == (
        us == 5_000.0
    )  # neither where it brings nothing nor where it lasts


def test_one_of_them_that_is_refused_does_not_harm_the_others(
    running: Running, client: Client, vectors: np.ndarray
) -> None:
    running.server.context.latencies.short_us = 0
    params = search_pb2.SearchParams(exact=True)
    bad = vectors[0].copy()
    bad[0] = np.nan
    coming = [
        client.search.Search.future(search_request("docs", query, 1, params=params), timeout=PATIENCE_S)
        for query in itertools.chain.from_iterable((vectors[i], bad) for i in range(10))
    ]
    for i, one in enumerate(coming):
        if i % 2:
            assert failure(one.result)[0] == "INVALID_ARGUMENT"
        else:
            assert one.result().ids.ints.values[0] == i // 2


def test_a_stream_of_searches_is_answered_in_order(running: Running, client: Client, vectors: np.ndarray) -> None:
    for short_us in (500.0, 0.0):
        running.server.context.latencies.short_us = short_us
        requests = [search_pb2.StreamSearchRequest(search=search_request("docs", one, 1)) for one in vectors]
        for request in requests[1:]:
            request.search.collection = ""  # that of the first
        answers = client(client.search.StreamSearch, iter(requests))
        assert [one.hits.ids.ints.values[0] for one in answers] == list(range(200))


def test_a_search_that_is_refused_ends_its_stream_after_the_answers_before_it(
    client: Client, vectors: np.ndarray
) -> None:
    requests = [search_pb2.StreamSearchRequest(search=search_request("docs", one, 1)) for one in vectors[:5]]
    requests[3].search.limit = 1_000_000
    answers = client.search.StreamSearch(iter(requests), timeout=PATIENCE_S)
    got = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in answers:
            got.append(answer)
    assert len(got) == 3 and status_of(caught.value)[2] == "LIMIT_EXCEEDED"


def test_an_answer_too_large_for_a_message_is_refused_before_it_is_worked_out(
    running: Running, client: Client, vectors: np.ndarray
) -> None:
    running.server.context.answer_bytes_max = 10_000
    big = search_request("docs", np.repeat(vectors, 3, 0), 200)
    assert failure(lambda: client(client.search.Search, big))[2] == "LIMIT_EXCEEDED"
    few = search_request("docs", vectors[:4], 16_384)  # more than there are records, which is no reason to refuse
    assert sum(client(client.search.Search, few).counts) == 800


# -- writes ----------------------------------------------------------------------------------------


def test_batches_of_a_stream_are_written_in_their_order_and_acknowledged_in_it(
    client: Client, vectors: np.ndarray
) -> None:
    def batches() -> Any:
        for i in range(40):  # all of them write the same ids: the last one must win
            yield records_pb2.IngestRequest(batch=i, write=write_request("docs", 0, 50 + vectors[i : i + 10]))

    answers = client(client.records.Ingest, batches())
    assert [(one.batch, one.count) for one in answers] == [(i, 10) for i in range(40)]
    assert client.nearest("docs", 50 + vectors[39], 1) == [0] and client.count("docs") == 200


def test_at_most_eight_batches_of_a_stream_are_unanswered(
    running: Running, client: Client, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb_server.services import records
    from vecdb_server.services.bidi_stream import BidiStream

    gate = threading.Event()
    prepared = records._prepare
    monkeypatch.setattr(records, "_prepare", lambda *args: gate.wait(PATIENCE_S) and prepared(*args))
    begun: list[int] = []
    serve = BidiStream.serve

    async def watched(self: BidiStream, begin: Any) -> None:
        def one(request: Any) -> Any:
            begun.append(records_pb2.IngestRequest.FromString(request).batch)
            return begin(request)

        await serve(self, one)

    monkeypatch.setattr(BidiStream, "serve", watched)
    requests = (records_pb2.IngestRequest(batch=i, write=write_request("docs", 0, vectors[:2])) for i in range(30))
    answers = client.records.Ingest(requests, timeout=PATIENCE_S)
    running.until(lambda: len(begun) == 8)
    running.on_loop(_turns())
    assert len(begun) == 8
    gate.set()
    assert [one.batch for one in answers] == list(range(30))


async def _turns() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def test_a_batch_that_is_refused_ends_the_stream_and_those_before_it_are_kept(
    client: Client, vectors: np.ndarray
) -> None:
    requests = [
        records_pb2.IngestRequest(batch=i, write=write_request("docs", 1_000 + i, vectors[:1])) for i in range(5)
    ]
    requests[3].write.vectors.dim = 3
    got = []
    with pytest.raises(grpc.RpcError) as caught:
        for answer in client.records.Ingest(iter(requests), timeout=PATIENCE_S):
            got.append(answer.batch)
    assert got == [0, 1, 2] and caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [one is not None for one in client.get("docs", 1_000, 1_001, 1_002, 1_003, 1_004)] == [True] * 3 + [
        False
    ] * 2


def test_a_write_under_a_request_id_is_carried_out_once(client: Client, vectors: np.ndarray) -> None:
    request = write_request("docs", 500, vectors[:3], mode=records_pb2.WRITE_MODE_INSERT, request_id="r1")
    assert [client(client.records.Write, request).count for _ in range(3)] == [3, 3, 3]
    request.request_id = "r2"
    assert outcome(lambda: client(client.records.Write, request)) == "ALREADY_EXISTS"
    request.request_id = "x" * 129
    assert failure(lambda: client(client.records.Write, request))[2] == "LIMIT_EXCEEDED"


def test_updates_deletes_and_reads_by_id(client: Client, vectors: np.ndarray) -> None:
    update = records_pb2.UpdateRequest(
        collection="docs", ids=int_ids([1, 2]), fields=common_pb2.FieldMaps(json=['{"a": 1}', '{"n": null}'])
    )
    assert client(client.records.Update, update).count == 2
    one, two, none = client.get("docs", 1, 2, 9_999, include_vectors=True)
    assert msgspec.msgpack.decode(one.fields) == {"n": 1, "even": False, "a": 1} and none is None
    assert msgspec.msgpack.decode(two.fields) == {"even": True}
    assert np.array_equal(np.frombuffer(two.vector, "<f4"), vectors[2])
    delete = records_pb2.DeleteRequest(collection="docs", ids=int_ids([1, 2, 9_999]))
    assert client(client.records.Delete, delete).count == 2
    assert client.count("docs") == 198


def test_a_list_gives_every_record_in_messages_of_bounded_size(
    client: Client, monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray
) -> None:
    from vecdb_server.services import records

    monkeypatch.setattr(records, "_LIST_BYTES", 2_000)
    messages = client(client.records.List, records_pb2.ListRequest(collection="docs", include_vectors=True, batch=500))
    assert sorted(one.int_id for message in messages for one in message.records) == list(range(200))
    assert max(message.ByteSize() for message in messages) < 2_200
    too_many = records_pb2.ListRequest(collection="docs", batch=65_537)
    assert failure(lambda: client(client.records.List, too_many))[2] == "LIMIT_EXCEEDED"


def test_tenants_are_listed_a_page_at_a_time(client: Client, vectors: np.ndarray) -> None:
    made = tenants_pb2.CreateTenantsRequest(collection="docs", names=[f"t{i:02}" for i in range(25)], records_max=3)
    assert client(client.tenants.CreateTenants, made).count == 25
    got: list[str] = []
    page = tenants_pb2.ListTenantsRequest(collection="docs", page_size=10)
    while True:
        answer = client(client.tenants.ListTenants, page)
        got += answer.names
        if not answer.next_page_token:
            break
        page.page_token = answer.next_page_token
    assert got == [f"t{i:02}" for i in range(25)]
    stats = tenants_pb2.GetTenantStatsRequest(collection="docs", tenant="t01")
    assert msgspec.json.decode(client(client.tenants.GetTenantStats, stats).stats_json)["records_max"] == 3
    client(client.tenants.DropTenant, tenants_pb2.DropTenantRequest(collection="docs", name="t01"))
    assert outcome(lambda: client(client.tenants.GetTenantStats, stats)) == "NOT_FOUND"
    many = tenants_pb2.GrantRequest(collection="docs", ids=int_ids(range(4)), tenants=names("t02"))
    assert failure(lambda: client(client.tenants.Grant, many))[2] == "LIMIT_EXCEEDED"


# -- collections and the database ------------------------------------------------------------------


def test_a_collection_that_is_dropped_and_made_anew_is_the_new_one(client: Client, vectors: np.ndarray) -> None:
    client(client.collections.DropCollection, collections_pb2.DropCollectionRequest(name="docs"))
    assert outcome(lambda: client.nearest("docs", vectors[0])) == "NOT_FOUND"
    client.create("docs", 3)
    client.write("docs", 0, np.eye(3, dtype=np.float32))
    assert client.nearest("docs", np.eye(3, dtype=np.float32)[1], 1) == [1]
    again = collections_pb2.CreateCollectionRequest(name="docs", dim=3)
    assert outcome(lambda: client(client.collections.CreateCollection, again)) == "ALREADY_EXISTS"


def test_long_operations_say_how_far_they_are_and_end_well(
    running: Running, client: Client, vectors: np.ndarray, tmp_path: Path
) -> None:
    docs = {"collection": "docs"}
    spann = collections_pb2.IndexConfig(spann=collections_pb2.SpannIndex(bits=4))
    client(client.collections.ReindexCollection, collections_pb2.ReindexCollectionRequest(**docs, index=spann))
    [*_, last] = client(client.collections.OptimizeCollection, collections_pb2.OptimizeCollectionRequest(**docs))
    assert last.progress.done == last.progress.total
    client(client.collections.VacuumCollection, collections_pb2.VacuumCollectionRequest(**docs))
    client(client.admin.Vacuum, admin_pb2.VacuumRequest())
    for rpc, request in (
        (client.collections.CheckCollection, collections_pb2.CheckCollectionRequest(**docs)),
        (client.admin.CheckDatabase, admin_pb2.CheckDatabaseRequest()),
    ):
        [*_, last] = client(rpc, request)
        assert last.done and not last.problems
    shown = client(client.collections.GetCollection, collections_pb2.GetCollectionRequest(name="docs")).collection
    assert shown.index.WhichOneof("kind") == "spann" and shown.index.spann.bits == 4
    assert outcome(lambda: client(client.admin.Backup, admin_pb2.BackupRequest(name="b"))) == "INVALID_ARGUMENT"


def test_a_backup_is_below_the_servers_folder_and_can_be_restored(
    serving: Serving, calling: Calling, tmp_path: Path, vectors: np.ndarray
) -> None:
    (tmp_path / "backups").mkdir()
    client = calling(serving(backups=str(tmp_path / "backups")))
    client.create("docs", vectors.shape[1])
    client.write("docs", 0, vectors)
    client(client.admin.Backup, admin_pb2.BackupRequest(name="monday"))
    vecdb.restore(tmp_path / "backups" / "monday", tmp_path / "restored")
    with vecdb.open(tmp_path / "restored") as db:
        assert db.collection("docs").count() == 200
    bucket = admin_pb2.BackupRequest(name="s3://bucket/prefix")
    with pytest.raises(grpc.RpcError, match="into no bucket"):
        list(client.admin.Backup(bucket))
    for name in ("", "..", "../x", "/tmp/x", ".hidden", "a/b", "x" * 129, "monday"):
        code = outcome(lambda name=name: client(client.admin.Backup, admin_pb2.BackupRequest(name=name)))
        assert code in ("INVALID_ARGUMENT", "ALREADY_EXISTS"), name


def test_a_long_operation_that_nobody_waits_for_stops_and_only_so_many_run_at_once(
    running: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = running.server.context
    stopped, begun = threading.Semaphore(0), threading.Semaphore(0)

    def vacuum(self: Any, *, progress: Any = None) -> None:
        begun.release()
        try:
            for i in itertools.count():
                progress(i, 10)
                threading.Event().wait(0.001)
        finally:
            stopped.release()

    monkeypatch.setattr(vecdb.Database, "vacuum", vacuum)
    calls = [client.admin.Vacuum(admin_pb2.VacuumRequest()) for _ in range(2)]
    for call in calls:
        assert next(call).progress.total == 10 and begun.acquire(timeout=PATIENCE_S)
    code, _, _, retry_s = failure(lambda: client(client.admin.Vacuum, admin_pb2.VacuumRequest()))
    assert code == "RESOURCE_EXHAUSTED" and retry_s is not None and retry_s > 0
    for call in calls:
        call.cancel()
        assert stopped.acquire(timeout=PATIENCE_S)
    running.until(lambda: len(context.long_operations) == 0)


def test_who_am_i_and_what_is_there(client: Client) -> None:
    info = client(client.admin.GetServerInfo, admin_pb2.GetServerInfoRequest())
    assert (info.version, info.principal) == (vecdb.__version__, "anonymous") and "admin" in info.scope
    stats = client(client.admin.GetDatabaseStats, admin_pb2.GetDatabaseStatsRequest()).stats_json
    assert msgspec.json.decode(stats)["collections"] == 1
    one = collections_pb2.GetCollectionStatsRequest(collection="docs")
    assert msgspec.json.decode(client(client.collections.GetCollectionStats, one).stats_json)["live"] == 200


def test_evaluate_and_tune_report(client: Client, vectors: np.ndarray) -> None:
    queries = vectors_message(vectors[:20])
    report = client(client.search.Evaluate, search_pb2.EvaluateRequest(collection="docs", queries=queries)).report_json
    assert msgspec.json.decode(report)["recall"] == 1.0
    curve = client(client.search.Tune, search_pb2.TuneRequest(collection="docs", queries=queries)).curve_json
    assert msgspec.json.decode(curve) == []  # so few are always compared with all


# -- errors ----------------------------------------------------------------------------------------


def test_an_error_carries_the_class_and_the_words_of_the_embedded_one(
    running: Running, client: Client, vectors: np.ndarray
) -> None:
    docs = running.server.context.db.collection("docs")
    for near, far in (
        (lambda: docs.search(vectors[0][:3]), lambda: client.nearest("docs", vectors[0][:3])),
        (lambda: docs.search(vectors[0], 99_999), lambda: client.nearest("docs", vectors[0], 99_999)),
        (
            lambda: docs.upsert(range(3), vectors[:2]),
            lambda: client.write("docs", 0, vectors[:2], ids=int_ids(range(3))),
        ),
        (lambda: docs.search(vectors[0], tenant="x"), lambda: client.nearest("docs", vectors[0], tenants=["x"])),
    ):
        with pytest.raises(vecdb.VecdbError) as caught:
            near()
        assert failure(far)[1:3] == (str(caught.value), caught.value.code)


def test_what_was_not_meant_to_happen_is_said_in_the_log_and_nowhere_else(
    running: Running, client: Client, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(vecdb.Collection, "search", broken)
    with pytest.raises(grpc.RpcError) as caught:
        client.search.Search(search_request("docs", vectors[0]), metadata=(("x-request-id", "abc-1"),))
    code, message, reason, _ = status_of(caught.value)
    assert (code, message, reason) == ("INTERNAL", "internal error, request abc-1", "INTERNAL")
    assert "secret" not in str(caught.value.trailing_metadata())


def test_no_error_says_where_the_database_lies(
    running: Running, client: Client, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = running.server.context.db.path
    request = collections_pb2.GetCollectionRequest(name="none")
    assert str(path) not in failure(lambda: client(client.collections.GetCollection, request))[1]

    def damaged(*args: Any, **options: Any) -> Any:
        raise vecdb.Corruption(f"{path}/collections/1/rows.0: block 3 is damaged")

    monkeypatch.setattr(vecdb.Collection, "search", damaged)
    code, message, reason, _ = failure(lambda: client.nearest("docs", vectors[0]))
    assert (code, reason) == ("DATA_LOSS", "CORRUPTION")
    assert message == "the database/collections/1/rows.0: block 3 is damaged"
    stats = client(client.admin.GetDatabaseStats, admin_pb2.GetDatabaseStatsRequest()).stats_json
    assert str(path.parent) not in stats
