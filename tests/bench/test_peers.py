"""Goal: each peer finds what brute force finds; those that are missing or fail are named, and the others go on."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_bench import child_process, peers, runner
from vecdb_bench.peers import contract
from vecdb_bench.reporting import results

PLAN = runner.Plan(
    dataset="clustered-3000x8", peers=("vecdb", "lorann"), efs=(10, 40), rounds=2, threads=1, queries=10, m=4,
    ef_construction=20, recall_enough=2.0,
)  # fmt: skip
LEAST = {"glass-sq4u": 0.9}  # recall; of few dimensions, 4 bits tell so much
OLD = ("vecdb", "vecdb-f32", "hnswlib", "faiss", "faiss-sq8", "usearch")  # names that kept results have


class Fake(peers.Peer):
    """A peer that answers at random. fails : the method that raises.   doing : every call, in order."""

    package = "numpy"

    def __init__(self, name: str, fails: str = "") -> None:
        self.name, self._fails = name, fails
        self.doing: list[str] = []

    def _do(self, what: str) -> None:
        self.doing.append(what)
        if what == self._fails:
            raise RuntimeError(f"{what} is broken")

    def load(self) -> None:
        self._do("load")

    def build(self, base: Any, metric: str, threads: int) -> dict[str, float]:
        self._do("build")
        return {}

    def set_ef(self, ef: int) -> None:
        self._do("set_ef")

    def batch(self, queries: Any, k: int) -> Any:
        self._do("batch")
        if self.doing.count("batch") == 2:  # the first is not timed
            self._do("timed")
        return np.zeros((len(queries), k), np.int64)

    def single(self, query: Any, k: int) -> Any:
        self._do("single")
        return np.zeros(k, np.int64)

    def disk_bytes(self) -> int:
        self._do("disk_bytes")
        return 1

    def close(self) -> None:
        self._do("close")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Any:
    """two(fails) puts a fake in the place of vecdb, and one that fails in the place of lorann; returns both."""

    def put(fails: str) -> tuple[Fake, Fake]:
        good, bad = Fake("vecdb"), Fake("lorann", fails)
        monkeypatch.setitem(peers.PEERS, "vecdb", lambda m, ef: good)
        monkeypatch.setitem(peers.PEERS, "lorann", lambda m, ef: bad)
        monkeypatch.setattr(runner, "_warm", lambda *of: None)
        return good, bad

    return put


# -- names -----------------------------------------------------------------------------------------------


def test_names_are_those_of_their_peers_and_of_kept_results() -> None:
    assert {name: make(4, 20).name for name, make in peers.PEERS.items()} == {name: name for name in peers.PEERS}
    assert set(OLD) <= set(peers.PEERS)
    assert peers.chosen(()) == ("vecdb",) and peers.chosen(["faiss", "vecdb", "faiss"]) == ("vecdb", "faiss")
    assert peers.chosen(["faiss", "all"]) == tuple(peers.PEERS)


def test_a_name_that_nobody_has_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=r"'annoy'; there are .*svs.*lorann"):
        peers.make_peers(["vecdb", "annoy"], 4, 20)
    told = CommandRunner().run(["bench", "run", "--peers", "annoy", "--out", str(tmp_path)])
    assert told.exit_code != 0 and "annoy" in told.output


# -- who is not measured ---------------------------------------------------------------------------------


def test_a_package_that_is_missing_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    made, absent = peers.make_peers(list(peers.PEERS), 4, 20)
    assert [peer.name for peer in made] == ["vecdb", "vecdb-f32"]
    assert set(absent) == set(peers.PEERS) - {"vecdb", "vecdb-f32"}
    assert absent["svs"] == "not installed: pip install scalable-vs"
    assert absent["glass-sq4u"] == "not installed: pip install pyglass-portable"
    assert absent["faiss-sq8"] == "not installed: pip install 'vecdb-engine[bench]'"
    assert absent["qdrant-edge"] == "not installed: pip install 'vecdb-engine[qdrant]'"


def test_vectors_that_a_peer_cannot_hold_are_a_reason_not_an_error(two: Any) -> None:
    named = {name: make(4, 20) for name, make in peers.PEERS.items()}
    assert named["glass-sq4u"].refusal("ip", 16) == "it has no metric ip, only l2, cosine"
    assert named["lorann"].refusal("l2", 16) == "it wants at least 64 dimensions, and these vectors have 16"
    assert named["vecdb"].refusal("jaccard", 16) is None and named["hnswlib"].refusal("jaccard", 16)
    _good, bad = two("")
    bad.metrics = ("ip",)
    found = runner.run(PLAN)
    assert found["absent"] == {"lorann": "it has no metric l2, only ip"} and bad.doing == []
    assert {p["peer"] for p in found["points"]} == {"vecdb"}


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("load", "it was loaded"), ("build", "it was built"), ("set_ef", "ef 10"), ("single", "ef 10"),
        ("timed", "it was timed, batch"), ("disk_bytes", "its bytes on disk were counted"),
    ],
)  # fmt: skip
def test_a_peer_that_fails_anywhere_is_reported_and_the_others_go_on(two: Any, fails: str, told: str) -> None:
    good, bad = two(fails)
    found = runner.run(PLAN)
    assert told in found["absent"]["lorann"] and f"RuntimeError: {fails} is broken" in found["absent"]["lorann"]
    assert {p["peer"] for p in found["points"]} == {"vecdb"} == set(found["builds"])
    assert len(found["points"]) == 4 and all(len(p["rates"]) == 2 for p in found["points"])
    assert bad.doing.count("close") == 1 == good.doing.count("close")


def test_a_peer_that_does_not_close_is_measured_all_the_same(two: Any) -> None:
    two("close")
    found = runner.run(PLAN)
    assert found["absent"] == {} and {p["peer"] for p in found["points"]} == {"vecdb", "lorann"}


def test_a_report_names_those_that_were_not_measured(two: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    two("build")
    results.show(runner.run(PLAN), Console(width=200))
    assert "lorann: it was built: RuntimeError: build is broken" in capsys.readouterr().out


def test_threads_of_a_peers_own_count_for_its_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runner.CLOCKS, "cpu", lambda: 0.0)
    ticks = iter([1.0, 3.0])
    monkeypatch.setitem(runner.CLOCKS_OF_ALL_THREADS, "cpu", lambda: next(ticks))
    plan = dataclasses.replace(PLAN, clock="cpu", rounds=1)
    mine, others = Fake("mine"), Fake("others")
    monkeypatch.setattr(others, "own_threads", True, raising=False)
    assert runner._alternate([mine, others], np.zeros((1, 2)), "single", plan) == {"mine": [0.0], "others": [2.0]}


def test_what_a_library_prints_does_not_get_into_a_result(capfd: pytest.CaptureFixture[str]) -> None:
    with contract.prints_to_stderr():
        subprocess.run([sys.executable, "-c", "print('noise')"], check=True)
    print("result", flush=True)
    shown = capfd.readouterr()
    assert shown.out == "result\n" and "noise" in shown.err


# -- answers -----------------------------------------------------------------------------------------------


def nearest(base: Any, queries: Any, metric: str, k: int) -> Any:
    if metric == "l2":
        scores = -((queries[:, None] - base[None]) ** 2).sum(-1)
    else:
        norms = np.linalg.norm(base, axis=1) * np.linalg.norm(queries, axis=1)[:, None] if metric == "cosine" else 1
        scores = queries @ base.T / norms
    return np.argsort(-scores, axis=1)[:, :k]


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_finds_what_brute_force_finds_under_each_metric_that_it_has(name: str) -> None:
    peer = peers.PEERS[name](16, 100)
    if why := peer.missing():
        pytest.skip(why)
    rng = np.random.default_rng(7)
    dim = max(16, peer.dim_min)
    base, queries = (rng.standard_normal((rows, dim)).astype(np.float32) for rows in (500, 20))
    for metric in [one for one in peer.metrics if one in ("l2", "cosine", "ip")]:
        peer = peers.PEERS[name](16, 100)
        peer.load()
        try:
            peer.build(base, metric, 2)  # type: ignore[arg-type]
            peer.set_ef(400)
            together = peer.batch(queries, 10)
            alone = np.stack([peer.single(query, 10) for query in queries])
            size = peer.disk_bytes()
        finally:
            peer.close()
        truth = nearest(base, queries, metric, 10)
        share = np.mean([len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(together, truth, strict=True)])
        assert share >= LEAST.get(name, 0.95), (name, metric, share)
        assert together.shape == (20, 10) and together.dtype == np.int64
        assert [set(row) for row in alone.tolist()] == [set(row) for row in together.tolist()]
        assert size > 0


@pytest.mark.parametrize(
    ("method", "told"),
    [("batch", "it searched with ef 10"), pytest.param("close", "it was closed", marks=pytest.mark.slow)],
)
def test_a_run_that_a_library_ends_goes_on_without_it(method: str, told: str, tmp_path: Path) -> None:
    plan = {"dataset": "clustered-300x8", "peers": ["vecdb", "lorann"], "efs": [10], "rounds": 1, "queries": 4, "m": 4}
    code = f"""
import os, json, pathlib
from vecdb_bench import peers, runner
from tests.bench.test_peers import Fake
class Ends(Fake):
    def {method}(self, *of):
        os._exit(3)
peers.PEERS["vecdb"] = lambda m, ef: Fake("vecdb")
peers.PEERS["lorann"] = lambda m, ef: Ends("lorann")
runner._warm = lambda *of: None
plan = {{name: tuple(v) if isinstance(v, list) else v for name, v in json.loads({json.dumps(plan)!r}).items()}}
print(json.dumps(runner.run(runner.Plan(**plan), folder=pathlib.Path({str(tmp_path)!r}))["absent"]))
"""
    run = lambda: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code], capture_output=True, text=True, env=child_process.modules_path(), check=False
    )
    assert run().returncode == 3
    assert json.loads(run().stdout) == {"lorann": f"the process ended while {told}"}
