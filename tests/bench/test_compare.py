"""Goal: a comparison of two results knows noise; a run says which peers are absent and goes on where it was killed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_bench import peers, runner
from vecdb_bench.reporting.compare import compare, permutation_p

PLAN = runner.Plan(
    dataset="clustered-3000x8", peers=("vecdb", "hnswlib"), efs=(10, 40), rounds=2, threads=1, queries=10, m=4,
    ef_construction=20, recall_enough=2.0,
)  # fmt: skip


def result(
    speed: float = 1.0,
    noise: float = 0.05,
    load: float = 0.0,
    rounds: int = 5,
    seed: int = 0,
    peer: bool = True,
    lost: float = 0.0,
) -> dict[str, Any]:
    """A result as `bench run` writes it. speed : of vecdb.   noise : spread of a rate by itself.   load : spread of
    what each round slows everybody down by.   lost : of vecdb's recall.
    """
    rng = np.random.default_rng(seed)
    names = {"vecdb": 5_000 * speed} | ({"hnswlib": 2_000.0} if peer else {})
    slow = np.exp(-np.abs(rng.normal(0, load, rounds)))
    points = []
    for name, rate in names.items():
        for ef, recall in ((10, 0.85), (40, 0.96), (160, 0.995)):
            rates = (rate * 10 / ef * np.exp(rng.normal(0, noise, rounds)) * slow).tolist()
            found = recall - (lost if name == "vecdb" else 0.0)
            points.append(
                {"peer": name, "mode": "single", "ef": ef, "recall": found, "rate": max(rates), "rates": rates}
            )
    data = {"name": "x", "rows": 100, "dim": 8, "dtype": "float32", "metric": "l2", "queries": 1_000}
    machine = {"processor": "one", "cores": 2, "features": [], "kernels": "k"}
    plan = {"limit": 10, "modes": ["single"]}
    return {"benchmark": "run", "builds": dict.fromkeys(names), "points": points, "data": data, "plan": plan,
            "machine": machine, "absent": {}}  # fmt: skip


def verdicts(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [row["verdict"] for row in next(iter(compare(a, b)["tables"].values()))]


def test_a_difference_beyond_noise_is_told_and_one_within_is_not() -> None:
    assert verdicts(result(), result(speed=1.3, seed=1)) == ["faster"] * 3
    assert verdicts(result(), result(speed=0.7, seed=1)) == ["slower"] * 3
    assert verdicts(result(noise=1e-5), result(speed=1.01, noise=1e-5, seed=1)) == ["the same"] * 3
    same = [verdicts(result(seed=2 * i), result(seed=2 * i + 1)).count("the same") for i in range(20)]
    assert sum(same) >= 54, "one of twenty is to be wrong, at most"


def test_the_load_of_the_machine_is_taken_out_where_there_is_a_peer() -> None:
    busy = [result(speed=1.3, load=1.5, seed=seed, noise=0.02) for seed in (3, 4)]
    assert verdicts(result(noise=0.02), busy[0]) == ["faster"] * 3
    alone = [result(speed=speed, load=1.5, seed=5 + i, peer=False) for i, speed in enumerate((1.0, 1.3))]
    found = compare(*alone)
    assert found["against"] is None and "no peer is in both" in found["notes"][0]
    assert {row["verdict"] for row in next(iter(found["tables"].values()))} == {"the same"}


def test_so_few_rounds_that_nothing_could_be_told_are_named() -> None:
    assert verdicts(result(rounds=3), result(speed=2, rounds=3)) == ["too few rounds"] * 3
    assert verdicts(result(rounds=4), result(speed=2, rounds=4, seed=1)) == ["faster"] * 3
    assert permutation_p([1, 2, 3], [4, 5, 6]) == 0.1 and permutation_p([1, 5], [2, 4]) == 1.0


def test_recall_at_the_same_width_is_compared_and_other_data_are_refused() -> None:
    rows = compare(result(), result(lost=0.05))["tables"]["recall at the same width"]
    assert [row["verdict"] for row in rows] == ["worse"] * 3
    assert {row["verdict"] for row in compare(result(), result())["tables"]["recall at the same width"]} == {"the same"}
    other = result()
    other["data"] = other["data"] | {"rows": 99}
    with pytest.raises(vecdb.InvalidArgument, match="rows 100 and 99"):
        compare(result(), other)
    with pytest.raises(vecdb.InvalidArgument, match="faiss"):
        compare(result(), result(), "faiss")


def test_the_command_shows_the_verdict_and_fails_where_it_is_asked_to(tmp_path: Path) -> None:
    for name, one in (("a", result()), ("b", result(speed=0.5, seed=1))):
        (tmp_path / name).write_text(json.dumps(one))
    told = ["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    shown = CommandRunner().run(told)
    assert shown.exit_code == 0 and "slower" in shown.stdout
    assert CommandRunner().run([*told, "--strict"]).exit_code == 1
    assert (
        CommandRunner().run(["bench", "compare", str(tmp_path / "b"), str(tmp_path / "a"), "--strict"]).exit_code == 0
    )


# -- peers that are absent, and runs that are killed -----------------------------------------------


class Fake(peers.Peer):
    """A peer that answers at random. fails : the method in which it raises, or ends the run as a signal does."""

    package = "numpy"
    log: list[str]

    def __init__(self, name: str, log: list[str], fails: dict[str, BaseException]) -> None:
        self.name, self.log, self._fails = name, log, fails
        self.module = None if name == "vecdb" else "json"

    def _do(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if what in self._fails:
            raise self._fails[what]

    def build(self, base: np.ndarray, metric: str, threads: int) -> dict[str, float]:
        self._do("build")
        return {}

    def set_ef(self, ef: int) -> None:
        self._do(f"ef {ef}")

    def batch(self, queries: np.ndarray, k: int) -> np.ndarray:
        return np.zeros((len(queries), k), np.int64)

    def single(self, query: np.ndarray, k: int) -> np.ndarray:
        return np.zeros(k, np.int64)

    def disk_bytes(self) -> int:
        return 1

    def close(self) -> None:
        pass


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """fakes(peer={method: what it raises}) puts such peers in the place of all; returns the log of their calls."""

    def put(**fails: dict[str, BaseException]) -> list[str]:
        log: list[str] = []
        for name in ("vecdb", "hnswlib"):
            monkeypatch.setitem(peers.PEERS, name, lambda m, ef, name=name: Fake(name, log, fails.get(name, {})))
        monkeypatch.setattr(runner, "_warm", lambda *of: None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # they need no package
        return log

    return put


@pytest.mark.slow  # as long as the next, which has a peer that fails, too
def test_a_peer_that_is_missing_or_fails_is_named_and_the_others_go_on(
    fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes(hnswlib={"build": ValueError("no memory")})
    found = runner.run(PLAN)
    assert found["absent"] == {"hnswlib": "it was built: ValueError: no memory"}
    assert {p["peer"] for p in found["points"]} == {"vecdb"} == set(found["builds"])
    fakes(hnswlib={"ef 40": RuntimeError("broken")})
    found = runner.run(PLAN)
    assert "ef 40: RuntimeError: broken" in found["absent"]["hnswlib"]
    assert [(p["peer"], p["ef"]) for p in found["points"] if p["mode"] == "batch"] == [("vecdb", 10), ("vecdb", 40)]
    fakes()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = runner.run(PLAN)
    assert "not installed" in found["absent"]["hnswlib"] and found["points"]
    with pytest.raises(vecdb.Unavailable, match="no peer is left"):
        runner.run(dataclasses.replace(PLAN, peers=("hnswlib",)))


def test_a_run_that_was_killed_goes_on_and_names_the_peer_that_killed_it(fakes: Any, tmp_path: Path) -> None:
    fakes(vecdb={"ef 40": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        runner.run(PLAN, folder=tmp_path)
    [partial] = tmp_path.glob("run-*.partial.json")
    log = fakes()
    found = runner.run(PLAN, folder=tmp_path)
    assert found["resumed"] and "vecdb ef 10" not in log and "vecdb ef 40" in log and found["absent"] == {}
    assert sorted({(p["peer"], p["ef"]) for p in found["points"]}) == [
        ("hnswlib", 10), ("hnswlib", 40), ("vecdb", 10), ("vecdb", 40),
    ]  # fmt: skip
    assert not list(tmp_path.iterdir()), "a finished run leaves no partial result"

    state = {"plan": json.loads(json.dumps({n: getattr(PLAN, n) for n in PLAN.__slots__})), "doing": "it was built",
             "peer": "hnswlib", "absent": {}, "points": []}  # fmt: skip
    partial.write_text(json.dumps(state))  # as a process that ended in the peer's own code leaves it
    log = fakes()
    found = runner.run(PLAN, folder=tmp_path)
    assert found["absent"] == {"hnswlib": "the process ended while it was built"}
    assert {line.split()[0] for line in log} == {"vecdb"}
    partial.write_text("{")
    assert runner.run(PLAN, folder=tmp_path)["resumed"] is False
