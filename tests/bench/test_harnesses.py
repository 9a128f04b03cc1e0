"""Goal: the plug-ins do what public harnesses ask of them, in the order in which those ask. Oracle: numpy."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

import vecdb
from tests.support.corpus import clustered
from tests.support.harnesses.interfaces import (
    PLUGINS,
    BaseANN,
    BigAnnBase,
    configured,
    install,
    plugin,
    run_ann,
    run_stream,
    vectordbbench,
)
from tests.support.server.driver import Running
from vecdb import limits
from vecdb_bench.harness_collection import HarnessCollection
from vecdb_server.config import Config

DIM, K = 24, 10
ANN = [
    ("vecdb_hnsw", [{"m": 8, "ef_construction": 60}], [[400]]),
    ("vecdb_spann", [{"bits": 8}], [[400, 0], [400, 60]]),
    ("vecdb_exact", [], []),
]


@pytest.fixture(autouse=True)
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The dims that kernels were loaded for; it takes a while, and tests/embedded/test_warm_up.py looks at it."""
    dims: list[int] = []
    monkeypatch.setattr(vecdb, "warm_up", lambda dim, *rest: dims.append(dim))
    return dims


def nearest(base: np.ndarray, queries: np.ndarray, k: int, distance: str = "euclidean") -> list[list[int]]:
    a, b = base.astype(np.float64), queries.astype(np.float64)
    if distance != "euclidean":
        a, b = (one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-300) for one in (a, b))
        return np.argsort(-(b @ a.T), axis=1, kind="stable")[:, :k].tolist()
    return np.argsort(((a[None] - b[:, None]) ** 2).sum(axis=2), axis=1, kind="stable")[:, :k].tolist()


def share(found: list[list[int]], true: list[list[int]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize(("folder", "parameters", "queries_of"), ANN, ids=[one[0] for one in ANN])
@pytest.mark.parametrize("distance", ["angular", "euclidean"])
def test_ann_benchmarks_runs_each_algorithm(
    monkeypatch: pytest.MonkeyPatch, folder: str, parameters: list[Any], queries_of: list[Any], distance: str,
    warmed: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(limits, "flat_rows_max", 256)  # so that few rows have an index
    install(monkeypatch, {"ann_benchmarks.algorithms.base.module": {"BaseANN": BaseANN}})
    told = configured(f"ann_benchmarks/{folder}/config.yml")[0]
    assert told["module"] == f"ann_benchmarks.algorithms.{folder}" and told["name"] == folder.replace("_", "-")
    assert told["docker_tag"] == f"ann-benchmarks-{folder}"
    module = plugin(f"ann_benchmarks/{folder}/module.py")
    base, queries = clustered(1_200, DIM), clustered(25, DIM, seed=2)
    base[7::50] = 0  # as nytimes has them
    algorithm = getattr(module, told["constructor"])(distance, DIM, *parameters)
    assert warmed == [DIM], "before fit is timed and weighed"
    results = run_ann(algorithm, base.astype(np.float64), queries, K, queries_of)
    assert len({name for name, _ in results}) == len(results) and results[0][0].startswith(told["name"])
    for _, found in results:
        assert share(found, nearest(base, queries, K, distance)) > (0.999 if folder == "vecdb_exact" else 0.97)


@pytest.mark.parametrize("folder", ["vecdb_hnsw", "vecdb_exact"])
def test_ann_benchmarks_runs_sets_of_bits(monkeypatch: pytest.MonkeyPatch, folder: str, warmed: list[int]) -> None:
    install(monkeypatch, {"ann_benchmarks.algorithms.base.module": {"BaseANN": BaseANN}})
    told = configured(f"ann_benchmarks/{folder}/config.yml")[1]
    parameters = [{"m": 8, "ef_construction": 60}] if folder == "vecdb_hnsw" else []
    algorithm = getattr(plugin(f"ann_benchmarks/{folder}/module.py"), told["constructor"])("hamming", 64, *parameters)
    rng = np.random.default_rng(4)
    base, queries = rng.random((500, 64)) < 0.5, rng.random((9, 64)) < 0.5
    apart = (base[None] != queries[:, None]).sum(axis=2)
    for _, found in run_ann(algorithm, base, queries, K, []):
        kth = np.sort(apart, axis=1)[:, K - 1 :]
        assert (np.take_along_axis(apart, np.array(found), axis=1) <= kth[:, :1]).mean() > 0.97


def test_vibe_runs_its_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"vibe.algorithms.base.module": {"BaseANN": BaseANN}})
    module = plugin("vibe/vecdb/module.py")
    arguments = {"vecdb-hnsw": ([8, 60], [[200]]), "vecdb-spann": ([4], [[300]]), "vecdb-exact": ([], [[1]])}
    base, queries = clustered(900, DIM), clustered(12, DIM, seed=2)
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (base, queries)]
    told = configured("vibe/vecdb/config.yml")
    assert sorted(one["name"] for one in told) == sorted(arguments)
    text = (PLUGINS / "vibe/vecdb/config.yml").read_text()
    assert text.count("query_args:") == len(told), "VIBE stores no result of an algorithm that has none"
    for one in told:
        parameters, groups = arguments[one["name"]]
        algorithm = getattr(module, one["constructor"])("normalized", DIM, *parameters)
        for _, found in run_ann(algorithm, units[0], units[1], 100, groups):
            assert share(found, nearest(*units, 100, "cosine")) > 0.97
    algorithm = module.VecdbHnsw("cosine", DIM, 8, 60)
    algorithm.fit_ood(base, queries, None)
    algorithm.set_query_arguments(300)
    assert share([algorithm.query(one, K).tolist() for one in queries], nearest(base, queries, K, "cosine")) > 0.97
    algorithm.done()


@pytest.fixture
def big_ann(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A data set with tags, which big-ann's plug-ins read by its name."""
    rng = np.random.default_rng(4)
    tags = [sorted(rng.choice(6, 3, replace=False).tolist()) for _ in range(700)]
    asked = [line[: 1 + i % 2] for i, line in enumerate(tags[:20])]

    def csr(lines: list[list[int]]) -> Any:
        return SimpleNamespace(
            indptr=np.cumsum([0] + [len(line) for line in lines]),
            indices=np.array([tag for line in lines for tag in line]),
        )

    data = SimpleNamespace(
        rows=clustered(700, DIM), queries=clustered(20, DIM, seed=2), nb=700, d=DIM, dtype="float32", tags=tags,
        asked=asked, search_type=lambda: "knn_filtered", get_dataset_metadata=lambda: csr(tags),
        get_queries_metadata=lambda: csr(asked),
    )  # fmt: skip
    data.get_dataset_iterator = lambda bs: (data.rows[at : at + 300] for at in range(0, 700, 300))
    install(
        monkeypatch,
        {
            "benchmark.datasets": {"DATASETS": {"tagged": lambda: data}},
            "neurips23.streaming.base": {"BaseStreamingANN": BigAnnBase},
            "neurips23.filter.base": {"BaseFilterANN": BigAnnBase},
            "neurips23.ood.base": {"BaseOODANN": BigAnnBase},
        },
    )
    return data


def big_ann_algorithm(track: str, file: str) -> Any:
    [told] = configured(f"big_ann/{track}/vecdb/config.yaml")
    assert told["module"] == f"neurips23.{track}.vecdb.{file}"
    return getattr(plugin(f"big_ann/{track}/vecdb/{file}.py"), told["constructor"])("euclidean", {"m": 8})


def test_big_ann_streams_records(big_ann: Any) -> None:
    steps = [("insert", 0, 400), ("search",), ("delete", 50, 150), ("insert", 400, 600), ("search",),
             ("replace", 0, 50, 600), ("search",)]  # fmt: skip
    results = run_stream(big_ann_algorithm("streaming", "stream"), big_ann, steps, K)
    rows, live = big_ann.rows.copy(), np.zeros(700, bool)
    expected = []
    for operation, *numbers in steps:
        if operation == "insert":
            live[slice(*numbers)] = True
        elif operation == "delete":
            live[slice(*numbers)] = False
        elif operation == "replace":
            rows[numbers[0] : numbers[1]] = big_ann.rows[numbers[2] : numbers[2] + numbers[1] - numbers[0]]
        else:
            there = np.flatnonzero(live)
            expected.append(there[np.array(nearest(rows[there], big_ann.queries, K))].tolist())
    for found, true in zip(results, expected, strict=True):
        assert share(found.tolist(), true) > 0.999


def test_big_ann_has_the_truth_of_a_set_of_ones_own() -> None:
    own = plugin("big_ann/own_set.py")
    rng = np.random.default_rng(4)
    rows, queries = (rng.integers(0, 256, (n, 8), dtype=np.uint8) for n in (1_000, 15))
    entries = own.make_runbook(len(rows), 120, seed=1)
    held: dict[int, int] = {}
    truths = {step: (tags, apart) for step, tags, apart in own.true_neighbours(rows, queries, entries, 5)}
    for step, entry in enumerate(entries, 1):
        if entry["operation"] == "insert":
            held |= {tag: tag for tag in range(entry["start"], entry["end"])}
        elif entry["operation"] == "delete":
            for tag in range(entry["start"], entry["end"]):
                del held[tag]
        elif entry["operation"] == "replace":
            tags = range(entry["tags_start"], entry["tags_end"])
            assert all(tag in held for tag in tags) and entry["ids_end"] <= len(rows)
            held |= {tag: entry["ids_start"] + i for i, tag in enumerate(tags)}
        else:
            there = rows[list(held.values())].astype(int)
            apart = ((queries[:, None].astype(int) - there) ** 2).sum(axis=2)
            assert (truths[step][1] == np.sort(apart, axis=1)[:, :5]).all()
            of_tags = rows[[[held[tag] for tag in line] for line in truths[step][0].tolist()]].astype(int)
            assert (((of_tags - queries[:, None]) ** 2).sum(axis=2) == truths[step][1]).all()
        assert len(set(held.values())) == len(held)
    kinds = [entry["operation"] for entry in entries]
    assert (
        len(kinds) == 120
        and kinds.count("search") == len(truths) == 60
        and {"insert", "delete", "replace"} < set(kinds)
    )


def test_big_ann_refuses_a_row_of_two_tags_and_too_few_records() -> None:
    own = plugin("big_ann/own_set.py")
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    twice = [{"operation": "insert", "start": 0, "end": 10},
             {"operation": "replace", "tags_start": 0, "tags_end": 5, "ids_start": 5, "ids_end": 10}]  # fmt: skip
    with pytest.raises(ValueError, match="held by other tags"):
        list(own.true_neighbours(rows, rows, twice, 5))
    with pytest.raises(ValueError, match="step 2: fewer than 15"):
        list(own.true_neighbours(rows, rows, [twice[0], {"operation": "search"}], 15))


def test_big_ann_filters_by_all_tags_of_a_query(big_ann: Any) -> None:
    algorithm = big_ann_algorithm("filter", "tags")
    assert algorithm.load_index("tagged") is False
    algorithm.fit("tagged")
    algorithm.set_query_arguments({"ef": 300})
    algorithm.filtered_query(big_ann.queries, big_ann.get_queries_metadata(), K)
    found = algorithm.get_results()
    for i, asked in enumerate(big_ann.asked):
        there = np.flatnonzero([set(asked) <= set(line) for line in big_ann.tags])
        true = there[np.array(nearest(big_ann.rows[there], big_ann.queries[i : i + 1], K)[0])]
        assert found[i].tolist() == true.tolist()
    algorithm.query(big_ann.queries, K)
    assert share(algorithm.get_results().tolist(), nearest(big_ann.rows, big_ann.queries, K)) > 0.99
    algorithm.done()


def test_big_ann_answers_queries_of_another_distribution(big_ann: Any) -> None:
    algorithm = big_ann_algorithm("ood", "ood")
    algorithm.fit("tagged")
    algorithm.set_query_arguments({"ef": 300})
    algorithm.query(big_ann.queries + 3, K)
    assert share(algorithm.get_results().tolist(), nearest(big_ann.rows, big_ann.queries + 3, K)) > 0.99
    algorithm.done()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("pydantic")
    modules = vectordbbench()
    install(monkeypatch, modules)
    for name in ("register", "config", "client", "own_sets"):
        monkeypatch.delitem(__import__("sys").modules, f"vecdb_bench.vectordbbench.{name}", raising=False)
    from vecdb_bench.vectordbbench.register import register

    return SimpleNamespace(
        member=register(), register=register, DB=modules["vectordb_bench.backend.clients"]["DB"],
        ops=modules["vectordb_bench.backend.filter"]["FilterOp"],
        payloads=modules["vectordb_bench.backend.payload"]["PayloadProfile"],
        sets=modules["vectordb_bench.backend.dataset"],
    )  # fmt: skip


def test_vectordbbench_knows_vecdb_as_it_knows_others(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    member, DB = registered.member, registered.DB
    assert DB("Vecdb") is DB["Vecdb"] is DB.Vecdb is member is pickle.loads(pickle.dumps(member))  # noqa: S301
    assert [one.name for one in DB] == ["Milvus", "Vecdb"] and registered.register() is member
    assert DB.Milvus.init_cls == "client of Milvus" and DB.Milvus.case_config_cls("x") == "case of Milvus x"
    assert member.init_cls.__name__ == "VecdbClient" and member.config_cls(uri="x").to_dict()["uri"] == "x"
    assert member.case_config_cls()(kind="flat").index_param()["index"] == vecdb.Flat()
    install(monkeypatch, vectordbbench() | {"vectordb_bench.models": {}})
    with pytest.raises(RuntimeError, match="before"):
        registered.register()


@pytest.mark.parametrize("served", [False, True], ids=["embedded", "grpc"])
def test_vectordbbench_loads_searches_filters_and_asks_for_tenants(
    registered: Any, tmp_path: Path, served: bool
) -> None:
    running = Running(Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", grace_s=5.0)) if served else None
    try:
        uri = f"grpc://{running.address}" if running else str(tmp_path / "db")
        member, payloads = registered.member, registered.payloads
        config, case = member.config_cls(uri=uri), member.case_config_cls()(metric_type="L2", ef=300, m=8)
        made = member.init_cls(DIM, config.to_dict(), case, drop_old=True)
        client = pickle.loads(pickle.dumps(made))  # noqa: S301 - as a process that is spawned gets it
        rows, queries = clustered(600, DIM), clustered(8, DIM, seed=2)
        labels, tenants = [f"label_{i % 3}" for i in range(600)], [f"tenant_{i % 5}" for i in range(600)]
        with client.init():
            for at in range(0, 600, 200):
                part = slice(at, at + 200)
                got, error = client.insert_embeddings(
                    rows[part].tolist(), list(range(at, at + 200)), labels[part], tenant_labels_data=tenants[part]
                )
                assert (got, error) == (200, None)
            client.optimize(600)
        cases = [
            (SimpleNamespace(type=registered.ops.NonFilter), None, np.arange(600)),
            (SimpleNamespace(type=registered.ops.NumGE, int_value=450), None, np.arange(450, 600)),
            (SimpleNamespace(type=registered.ops.StrEqual, label_value="label_2"), None, np.arange(2, 600, 3)),
            (SimpleNamespace(type=registered.ops.NonFilter), "tenant_3", np.arange(3, 600, 5)),
        ]
        for filters, tenant, there in cases:
            client.prepare_filter(filters)
            copied = pickle.loads(pickle.dumps(client))  # noqa: S301
            with copied.init():
                for query, true in zip(queries, nearest(rows[there], queries, K), strict=True):
                    found = copied.search_embedding(query.tolist(), K, tenant=tenant)
                    assert found == there[true].tolist()
                for payload in (payloads.VECTOR, payloads.SCALAR_LABEL):
                    assert copied.supports_payload_profile(payload)
                    assert copied.search_embedding(query.tolist(), K, payload, tenant=tenant) == found
        assert copied.supports_multitenant() and not copied.supports_payload_profile(payloads.TEXT)
        assert member.init_cls.supports_payload_profile(payloads.IDS_ONLY), "asked of the class"
        with client.init():
            got, error = client.insert_embeddings([[1.0]], [1])
            assert got == 0 and isinstance(error, vecdb.InvalidArgument)
    finally:
        if running:
            running.close()


OWN_SET = {
    "custom_dataset_name": "mine", "custom_dataset_dir": "/data/mine", "custom_dataset_size": "900",
    "custom_dataset_dim": "24", "custom_dataset_metric_type": "COSINE", "custom_dataset_file_count": "1",
}  # fmt: skip


def case_config(case: str, **options: str) -> dict[str, Any]:
    """What a case is made from, by the command's own function, for options as they are typed."""
    from vecdb_bench.vectordbbench.own_sets import with_own_sets

    theirs = with_own_sets(lambda told: {"dataset_with_size_type": "theirs", "description": told["case_type"]})
    found: list[dict[str, Any]] = []
    optional = dict.fromkeys(OWN_SET) | {
        "custom_case_description": "Mine.", "custom_dataset_use_shuffled": False, "custom_dataset_with_gt": True,
        "num_concurrency": "1,80", "concurrency_duration": 30, "label_percentage": 0.01,
    }  # fmt: skip

    def called(**parameters: Any) -> None:
        parameters["num_concurrency"] = [int(one) for one in parameters["num_concurrency"].split(",")]
        found.append(theirs({"case_type": case, **parameters}))

    made: list[click.Parameter] = [
        click.Option([f"--{name.replace('_', '-')}"], default=value) for name, value in optional.items()
    ]
    told = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    click.Command("vecdb", callback=called, params=made).main(told, standalone_mode=False)
    return found[0]


@pytest.fixture
def no_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECDB_VECTORDBBENCH_SET", "")  # so that what a test leaves there goes
    monkeypatch.delenv("VECDB_VECTORDBBENCH_SET")


@pytest.mark.parametrize("case", ["NewIntFilterPerformanceCase", "CloudMultiTenantSearchCase"])
def test_vectordbbench_takes_a_set_of_ones_own_by_name(
    registered: Any, no_set: None, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    from vecdb_bench.vectordbbench.own_sets import register_set

    assert register_set() is None and case_config(case)["dataset_with_size_type"] == "theirs"
    chosen = case_config(case, **OWN_SET)
    assert chosen == {"dataset_with_size_type": "Small mine (24dim, 900)", "description": case}
    parent = registered.sets["DatasetWithSizeType"]
    sent = pickle.dumps(parent(chosen["dataset_with_size_type"]))
    assert case_config(case, **OWN_SET) == chosen and len(parent) == 2, "known already"
    modules = vectordbbench()  # a process that is spawned has upstream's own list, and what the environment says
    install(monkeypatch, modules)
    sets = modules["vectordb_bench.backend.dataset"]
    with pytest.raises(ValueError, match="mine"):
        pickle.loads(sent)  # noqa: S301
    member = register_set()
    assert pickle.loads(sent) is member is sets["DatasetWithSizeType"](chosen["dataset_with_size_type"])  # noqa: S301
    told = dict(sets["DatasetWithSizeMap"][member][1:])
    assert (told["dir"], told["size"], told["dim"], told["with_gt"]) == ("/data/mine", "900", "24", True)


def test_vectordbbench_is_told_what_a_set_lacks(registered: Any, no_set: None) -> None:
    less = {name: value for name, value in OWN_SET.items() if name not in ("custom_dataset_dim", "custom_dataset_size")}
    with pytest.raises(click.UsageError, match="--custom-dataset-size, --custom-dataset-dim too"):
        case_config("LabelFilterPerformanceCase", **less)


def test_vectordbbench_streams_and_filters_custom_sets(registered: Any, no_set: None) -> None:
    plain = case_config("StreamingPerformanceCase", **OWN_SET)
    assert plain["dataset_with_size_type"] == "Small mine (24dim, 900)"
    assert not {"concurrencies", "read_dur_after_write"} & set(plain), "the case's own where nothing was typed"
    typed = case_config("StreamingCustomDataset", **OWN_SET, num_concurrency="1,2", concurrency_duration="5")
    assert typed["concurrencies"] == [1, 2] and typed["read_dur_after_write"] == 5 and typed["description"] == "Mine."
    assert typed["dataset_config"]["dir"] == "/data/mine" and typed["dataset_config"]["metric_type"] == "COSINE"
    assert "use_filter" not in case_config("PerformanceCustomDataset", **OWN_SET)
    labelled = case_config("PerformanceCustomDataset", **OWN_SET, label_percentage="0.1")
    assert labelled["use_filter"] and labelled["label_percentage"] == 0.1


def test_a_harness_that_asks_before_it_fits_is_told_so() -> None:
    with pytest.raises(vecdb.InvalidArgument, match="fit"):
        HarnessCollection(vecdb.Flat(), "angular").search(np.ones(4), 1)
    with pytest.raises(vecdb.InvalidArgument, match="edit distance"):
        HarnessCollection(vecdb.Flat(), "edit distance")


def test_every_plugin_has_a_page_that_says_how_it_is_run() -> None:
    for name in ("ann_benchmarks", "vibe", "big_ann", "vectordbbench"):
        assert "vecdb-engine" in (PLUGINS / name / "README.md").read_text()
