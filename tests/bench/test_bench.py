"""Benchmarks measure what they say: interpolation by hand; every benchmark run small, for shape and not for speed."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_bench import disk, mixture, runner, tenants
from vecdb_bench.calls.interference import interference
from vecdb_bench.calls.threads import threads
from vecdb_bench.child_process import SharedEngine, SharedProcess
from vecdb_bench.coldstart import coldstart
from vecdb_bench.engines import engine_process
from vecdb_bench.figures import kept
from vecdb_bench.ingest import ingest
from vecdb_bench.reporting import machine, recall_curves, results
from vecdb_bench.tenants import lineup


def test_a_rate_between_two_points_lies_on_the_line_of_logarithms() -> None:
    points = [(0.8, 1000.0), (1.0, 100.0)]
    rate = recall_curves.rate_at(points, 0.9)
    assert rate is not None and math.isclose(rate, math.sqrt(1000 * 100))


def test_a_recall_that_was_not_reached_has_no_rate() -> None:
    assert recall_curves.rate_at([(0.8, 1000.0)], 0.9) is None
    assert recall_curves.rate_at([], 0.9) is None
    assert recall_curves.rate_at([(0.95, 500.0), (0.99, 100.0)], 0.9) == 500.0


def test_the_frontier_drops_what_another_point_beats() -> None:
    assert recall_curves.frontier([(0.9, 50.0), (0.8, 40.0), (0.95, 20.0)]) == [(0.9, 50.0), (0.95, 20.0)]


def test_the_machine_is_named_with_the_digest_of_its_kernels() -> None:
    facts = machine.facts(["vecdb-engine"])
    assert facts["kernels"] == machine.kernels_digest()
    assert facts["versions"]["vecdb"] == vecdb.__version__
    assert {"processor", "features", "cores", "python"} <= set(facts)


@pytest.fixture(scope="module")
def small() -> dict[str, object]:
    plan = runner.Plan(
        dataset="clustered-5000x16",
        peers=("vecdb",),
        efs=(16, 64),
        rounds=1,
        threads=1,
        queries=20,
        m=8,
        ef_construction=40,
    )
    return runner.run(plan)


def test_a_run_measures_every_peer_mode_and_width(small: dict[str, list[dict[str, object]]]) -> None:
    assert {(p["peer"], p["mode"], p["ef"]) for p in small["points"]} >= {
        ("vecdb", "batch", 16),
        ("vecdb", "single", 16),
    }
    assert all(0.5 < float(str(p["recall"])) <= 1 and float(str(p["rate"])) > 0 for p in small["points"])
    assert [row["mode"] for row in small["summary"]] == ["batch", "single"]


def test_a_result_is_a_file_that_loads(small: dict[str, object], tmp_path: Path) -> None:
    first, second = results.write(small, tmp_path), results.write(small, tmp_path)
    assert first != second
    assert json.loads(first.read_text())["data"]["rows"] == 5_000


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra [bench]")
def test_a_plot_is_a_picture(small: dict[str, object], tmp_path: Path) -> None:
    assert results.plot(small, tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_peers_are_refused_before_anything_is_built() -> None:
    with pytest.raises(vecdb.InvalidArgument, match="hnswlib"):
        runner.run(runner.Plan(peers=("vecdb", "nobody")))


class Silent(engine_process.Engine):
    """An engine, and a peer, that find nothing."""

    name = "silent"

    def prepare(self, value: int) -> None: ...

    def search(self, query: object) -> list[int]:
        return []

    def rows(self, result: list[int]) -> list[int]:
        return result

    def single(self, query: object, k: int) -> None: ...


def test_searches_are_timed_by_the_clock_of_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = itertools.count()
    monkeypatch.setitem(engine_process.CLOCKS, "cpu", lambda: float(next(ticks)))
    engine = Silent(tmp_path, None, [0, 1, 2], {"clock": "cpu"})
    assert engine_process.turn(engine, 1)["seconds"] == [1, 1, 1] and next(ticks) == 6
    plan = runner.Plan(clock="cpu", rounds=2)
    assert runner._alternate([engine], np.zeros((3, 2)), "single", plan) == {"silent": [1, 1]}  # type: ignore[list-item]
    for refused in (lambda: runner.run(runner.Plan(clock="sun")), lambda: tenants.run(tenants.Plan(clock="sun"))):
        with pytest.raises(vecdb.InvalidArgument, match="wall, cpu"):
            refused()


def test_ingest_counts_what_was_acknowledged(tmp_path: Path) -> None:
    found = ingest(
        path=tmp_path, dim=8, threads=4, seconds=0.05, batch_rows=100, batches=3, sustained_batches=5, rounds=1
    )
    assert found["singles"][0]["rows_per_commit"] >= 1
    assert found["batches"][0]["rows_per_second"] > 0
    assert not list(tmp_path.iterdir())
    shown = kept.of_result(found, "vecdb bench ingest", "c0").rows
    assert [len(shown[name]) for name in ("singles", "batches", "sustained")] == [1, 1, 1]
    assert shown["sustained"][0]["rows_per_second_with_graph"] > 0, "what README's sentence is made of"


def test_interference_reports_idle_and_busy(tmp_path: Path) -> None:
    found = interference(path=tmp_path, dataset="clustered-6000x8", rows=5_000, batch_rows=100, seconds=0.1, rounds=1)
    (round_,) = found["rounds"]
    assert round_["idle"]["p99"] > 0 and round_["busy"]["n"] > 0 and round_["rows_per_second"] > 0


@pytest.mark.slow  # four seconds: a build, and a process that searches
def test_searching_from_disk_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    plan = disk.Plan(dataset="clustered-6000x16", queries=20, rounds=1, threads=1, sweep=(4, 64), path=str(tmp_path))
    found = disk.run(plan, lambda folder: {"files": len(list(folder.iterdir()))})
    few, many = found["points"]
    assert few["recall"] <= many["recall"] and many["recall"] > 0.9
    assert many["reads"] >= 10 and many["bytes_read"] >= 4096 * many["reads"]
    assert few["probes"] == 4 and 32 <= many["probes"] <= 96  # of many lists, a query reads what it is worth
    assert found["disk"]["files"] > 0 and found["builds"]["vecdb"]["disk_bytes"] > 6_000 * 16 * 4
    assert not list(tmp_path.iterdir())
    with pytest.raises(vecdb.InvalidArgument, match="nobody"):
        disk.run(disk.Plan(dataset="clustered-6000x16", peers={"nobody": "python"}), lambda folder: {})


def test_interests_that_lie_apart_are_found_each_in_its_share() -> None:
    """Two tags at right angles: the mean of both is nearest to what lies between them, the mixture finds both."""
    rng = np.random.default_rng(0)
    middles = np.zeros((3, 8))
    middles[0, 0] = middles[1, 1] = middles[2, 0] = middles[2, 1] = 1.0
    middles[2] /= np.sqrt(2.0)
    tag = np.arange(600) % 3
    vectors = (middles[tag] + rng.normal(0, 0.05, (600, 8))).astype(np.float32)
    users = mixture.draw_users(np.arange(601), tag, 30, 12, 2, seed=1)
    assert all(len(user.positives) == len(user.held_out) == 6 for user in users)
    both = [user for user in users if set(tag[[*user.positives, *user.held_out]].tolist()) == {0, 1}]
    assert len(both) >= 5
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 8, metric="cosine")
        docs.upsert(range(600), vectors)
        plain, mixed, smoothed = mixture.compare(docs, vectors, both, 100, 8, 0.3)
    assert mixed["diversity@100"] > 2 * plain["diversity@100"]
    assert mixed["held-out recall@100"] > plain["held-out recall@100"] and smoothed["ms"] > 0
    assert math.isclose(mixture.diversity(np.eye(3)), 1.0) and mixture.diversity(np.eye(3)[:1]) == 0.0
    with pytest.raises(vecdb.InvalidArgument, match="tags"):
        mixture.run(mixture.Plan(dataset="clustered-500x8"))
    with pytest.raises(vecdb.InvalidArgument, match="index"):
        mixture.run(mixture.Plan(index="tree"))


SHARED = "tenants-3000x16-count40"


@pytest.mark.slow  # seven seconds; the next test runs the command with every peer
def test_searching_among_tenants_is_measured_beside_brute_force(tmp_path: Path) -> None:
    plan = tenants.Plan(SHARED, index="hnsw", peers=("numpy",), measures=("search", "memory"), path=str(tmp_path))
    found = tenants.run(plan.quick())
    assert {point["contestant"] for point in found["search"]["points"]} == {"vecdb", "numpy"}
    for point in found["search"]["points"]:
        assert point["searches"] == 200 and 0.9 < point["recall"] <= 1 and point["p99_ms"] >= point["p50_ms"] > 0
    best = found["search"]["best"]
    assert best["numpy"]["recall"] == best["vecdb"]["recall_by_tenant_p1"] == 1
    assert sum(count for name, count in best["vecdb"]["kernel"].items() if name.startswith("searches by")) == 200
    assert math.isclose(best["numpy"]["mean_by_it"], best["vecdb"]["mean_ms"] / best["numpy"]["mean_ms"])
    assert found["memory"]["bytes"]["vecdb"]["searched"] > 0 and found["memory"]["pairs"] == found["data"]["pairs"]
    assert not list(tmp_path.iterdir())
    assert json.loads(results.write(found, tmp_path).read_text())["plan"]["index"] == "hnsw"


@pytest.mark.skipif(importlib.util.find_spec("hnswlib") is None, reason="needs the extra [bench]")
@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="needs the extra [bench]")
def test_every_peer_serves_the_tenants_it_is_asked_for(tmp_path: Path) -> None:
    found = tenants.run(tenants.Plan(SHARED, index="flat", measures=("search",), path=str(tmp_path)).quick())
    assert set(found["search"]["best"]) == {"vecdb", *tenants.PEERS}


@pytest.mark.slow  # a quarter of a minute; the fast tier measures tenants in processes of their own
def test_tenants_are_searched_by_all_in_one_process_with_the_same_answers(tmp_path: Path) -> None:
    asked = {"peers": ("numpy",), "measures": ("search", "memory"), "together": True}
    found = tenants.run(tenants.Plan(SHARED, index="flat", path=str(tmp_path), **asked).quick())
    assert {one["contestant"]: one["recall"] for one in found["search"]["points"]} == {"vecdb": 1, "numpy": 1}
    assert found["search"]["best"]["vecdb"]["recall_by_tenant_p1"] == 1
    assert found["memory"]["bytes"]["vecdb"]["searched"] > 0
    assert not list(tmp_path.iterdir())


class SharedSeat(SharedEngine):
    """An engine whose process ends with the test, and not with the engine."""

    def __enter__(self) -> SharedSeat:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Engines of one process: to start one takes longer than what a test asks of it. In processes of their own they
    are in test_searching_among_tenants_is_measured_beside_brute_force.
    """
    with SharedProcess(tmp_path) as shared:

        def enter(field: lineup.Lineup, engine: lineup.EngineSpec, one_thread: bool = False) -> SharedSeat:
            shared._folder = field.folder
            return SharedSeat(shared.add(engine.name, engine.script, engine.spec).name, shared)

        monkeypatch.setattr(lineup.Lineup, "_process", enter)
        yield


@pytest.mark.slow  # a quarter of a minute
def test_unions_growth_sizes_and_writes_of_tenants_are_measured(tmp_path: Path, one_process: None) -> None:
    measures = ("union", "growth", "sizes", "writes", "many")
    found = tenants.run(tenants.Plan(SHARED, index="flat", peers=(), measures=measures, path=str(tmp_path)).quick())
    assert [point["questions"] for point in found["union"]["points"]] == ["roles", "alone"]
    assert found["union"]["ratios"][0]["ratio"] > 0 and found["growth"]["ratio"] > 0
    assert {point["rows"] for point in found["growth"]["points"]} == {1_000, 4_000}
    sizes = found["sizes"]["points"]
    assert [one["rows"] for one in sizes] == [200, 1_000] and all(one["chosen_by_best"] > 0 for one in sizes)
    assert all(shown["recall"] > 0.8 for one in sizes for shown in one["ways"].values())
    assert len(found["writes"]) == 10 and all(one["us_each"] > 0 for one in found["writes"].values())
    assert found["many"]["tenants"] == 5_000 and found["many"]["first_search_ms"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (tenants.Plan(measures=("speed",)), "search, memory"),
        (tenants.Plan(peers=("nobody",)), "hnswlib-100"),
        (tenants.Plan(index="nothing"), "curator, hnsw"),
        (tenants.Plan("clustered-3000x16", index="flat", peers=()), "belong to nobody"),
    ],
)
def test_plans_that_cannot_be_measured_are_refused(plan: tenants.Plan, told: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=told):
        tenants.run(plan)


@pytest.mark.slow
def test_cold_starts_do_not_load_numba_on_import() -> None:
    found = coldstart(rows=5_000, dim=8, rounds=1)
    assert not found["import_loads_numba"]
    assert len(found["seconds"]) == 6


def test_a_run_without_plots_prints_one_document(
    small: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(runner, "run", lambda plan, note, folder: small)
    result = CommandRunner().run(["bench", "run", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["file"]


@pytest.mark.slow  # a quarter of a minute
def test_threads_and_processes_are_measured_in_turns_with_another_tree() -> None:
    here = str(Path(vecdb.__file__).parent.parent)
    found = threads(base=here, rows=5_000, seconds=0.05, rounds=1, counts=(1,), say=lambda text: None)
    rows = found["tables"]["calls"]
    assert [(row["way"], row["tree"], row["count"]) for row in rows] == [
        (way, tree, count) for way in ("threads", "processes") for tree in ("base", "this") for count in (1,)
    ]
    assert all(row["rate"] > 0 and row["p99_us"] >= row["median_us"] > 0 for row in rows)
    assert all((row["by_base"] is None) == (row["tree"] == "base") for row in rows)
