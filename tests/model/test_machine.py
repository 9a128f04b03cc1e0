"""Goal: whatever order of calls, a collection answers as a dict and brute force do, for every index, metric and dtype.

A hypothesis state machine per configuration, derandomised so that a run repeats: what fails is shrunk and printed.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.model.setups import IDS, NAMES, Setup, kinds_for
from tests.model.twin import Twin

SETUPS = [
    Setup("flat", "l2"),
    Setup("flat", "cosine", "float16", memory=False),
    Setup("flat", "ip", "int8", "str"),
    Setup("auto", "l2", "uint8", memory=False),
    Setup("auto", "cosine"),
    Setup("auto", "ip", "float16", "str"),
    Setup("hnsw", "l2", memory=False, durability="full"),
    Setup("hnsw", "l2", ids="str"),
    Setup("hnsw", "cosine", memory=False),
    Setup("hnsw", "cosine", "int8"),
    Setup("hnsw", "ip", memory=False, ids="str"),
    Setup("hnsw", "ip", "uint8"),
    Setup("hnsw-full", "l2", "float16"),
    Setup("hnsw-full", "cosine", ids="str"),
    Setup("hnsw-full", "ip", memory=False),
    Setup("hnsw", "jaccard", "bits", memory=False),
    Setup("spann", "l2", memory=False),
    Setup("spann-disk", "ip"),
    Setup("curator", "cosine", memory=False),
    Setup("curator", "l2", "uint8", "str"),
]
RARE_SETUPS = [
    Setup("auto", "hamming", "bits", "str"),
    Setup("spann-disk", "ip", "int8"),
    Setup("spann", "cosine", "float16", "str"),
    Setup("spann-lossless", "l2", "uint8", memory=False),
    Setup("spann-disk", "l2", memory=False, durability="full"),
    Setup("spann-some", "cosine", memory=False, ids="str"),
    Setup("curator", "ip", memory=False, durability="full"),
    Setup("curator-graph", "l2", memory=False),
]

numbers = st.integers(0, IDS - 1)
vector = st.integers(0, 63)
pairs = st.lists(st.tuples(numbers, vector), min_size=1, max_size=12)
values = st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3), st.lists(st.booleans(), max_size=2))
names = st.lists(st.sampled_from(NAMES), max_size=3)
records = st.dictionaries(st.sampled_from(["a", "b", "ü"]), values, max_size=3)


class Machine(RuleBasedStateMachine):
    setup = Setup()

    def __init__(self) -> None:
        super().__init__()
        self.twin = Twin(self.setup)

    def teardown(self) -> None:
        self.twin.close()

    @rule(pairs=pairs, data=st.one_of(st.none(), st.lists(records, min_size=12, max_size=12)))
    def upsert(self, pairs: list[tuple[int, int]], data: list[Any] | None) -> None:
        self.twin.upsert(*map(list, zip(*pairs, strict=True)), None if data is None else data[: len(pairs)])

    @rule(pairs=pairs, data=st.one_of(st.none(), st.lists(records, min_size=12, max_size=12)), all_bare=st.booleans())
    def upsert_without_vectors(self, pairs: list[tuple[int, int]], data: list[Any] | None, all_bare: bool) -> None:
        numbers, vectors = map(list, zip(*pairs, strict=True))
        vectors = [-1 if all_bare or number % 2 else number for number in vectors]
        self.twin.upsert(numbers, vectors, None if data is None else data[: len(pairs)])

    @rule(first=numbers, stop=numbers, step=st.sampled_from([1, 3, 5]))
    def upsert_many(self, first: int, stop: int, step: int) -> None:
        chosen = list(range(first, max(first + 1, stop)))
        self.twin.upsert(chosen, [(number * step) % 64 for number in chosen])

    @rule(chosen=st.lists(numbers, min_size=2, max_size=8, unique=True), vector=vector)
    def same_vector_under_many_ids(self, chosen: list[int], vector: int) -> None:
        self.twin.upsert(chosen, [vector] * len(chosen))

    @rule(pairs=pairs)
    def insert(self, pairs: list[tuple[int, int]]) -> None:
        self.twin.insert(*map(list, zip(*pairs, strict=True)))

    @rule(
        chosen=st.lists(st.integers(0, 100), min_size=1, max_size=3),
        vectors=st.one_of(st.none(), st.lists(vector, min_size=3, max_size=3)),
        changes=st.lists(records, min_size=3, max_size=3),
        live=st.booleans(),
    )
    def update(self, chosen: list[int], vectors: list[int] | None, changes: list[Any], live: bool) -> None:
        picked = self._live(chosen) if live else [one % IDS for one in chosen]
        self.twin.update(picked, vectors, changes if vectors is None or chosen[0] % 2 else None)

    @rule(pairs=pairs, lists=st.lists(names, min_size=12, max_size=12))
    def upsert_for_tenants(self, pairs: list[tuple[int, int]], lists: list[list[str]]) -> None:
        self.twin.upsert(*map(list, zip(*pairs, strict=True)), None, lists[: len(pairs)])

    @rule(chosen=st.lists(st.integers(0, 100), min_size=1, max_size=8), granted=names, live=st.integers(0, 9))
    def grant(self, chosen: list[int], granted: list[str], live: int) -> None:
        self.twin.grant(self._live(chosen) if live else [one % IDS for one in chosen], granted)

    @rule(chosen=st.lists(st.integers(0, 100), min_size=1, max_size=8), taken=names, live=st.integers(0, 9))
    def revoke(self, chosen: list[int], taken: list[str], live: int) -> None:
        self.twin.revoke(self._live(chosen) if live else [one % IDS for one in chosen], taken)

    def _live(self, chosen: list[int]) -> list[int]:
        there = [number for number in range(IDS) if self.twin.id(number) in self.twin.model]
        return [there[one % len(there)] if there else one % IDS for one in chosen]

    @rule(name=st.sampled_from(NAMES))
    def drop_tenant(self, name: str) -> None:
        self.twin.drop_tenant(name)

    @rule(query=vector, names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
    def search_among_tenants(self, query: int, names: list[str]) -> None:
        for limit in (1, 3, len(self.twin.seen_by(names)) + 1):
            self.twin.search_among(names, query, limit, exact=True)
            self.twin.search_among(names, query, limit, exact=False)

    @rule(
        chosen=st.lists(st.integers(0, 100), min_size=1, max_size=6),
        others=st.one_of(st.none(), st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=3), max_size=3)),
        among=st.one_of(st.none(), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)),
        components=st.sampled_from([1, 2, 8]),
        smoothing=st.sampled_from([0.0, 0.3, 1.0]),
        foreign=st.integers(0, 9),
    )
    def search_mixture(
        self,
        chosen: list[int],
        others: list[list[int]] | None,
        among: list[str] | None,
        components: int,
        smoothing: float,
        foreign: int,
    ) -> None:
        pick = self._live if among is None or not foreign else lambda one: self._seen(one, among)
        liked, histories = pick(chosen), None if others is None else [pick(one) for one in others]
        visible = self.twin.model if among is None else self.twin.seen_by(among)
        for limit in (1, max(1, len(visible) - len(set(liked))), len(visible) + 1):
            for exact in (True, False):
                self.twin.search_mixture(
                    liked, limit, among=among, components=components, others=histories, smoothing=smoothing, exact=exact
                )

    def _seen(self, chosen: list[int], among: list[str]) -> list[int]:
        visible = self.twin.seen_by(among)
        there = [number for number in range(IDS) if self.twin.id(number) in visible]
        return [there[one % len(there)] if there else one % IDS for one in chosen]

    @rule(chosen=st.lists(numbers, min_size=1, max_size=15))
    def delete(self, chosen: list[int]) -> None:
        self.twin.delete(chosen)

    @rule()
    def delete_everything(self) -> None:
        self.twin.delete_everything()

    @rule(chosen=st.lists(numbers, min_size=1, max_size=5))
    def get(self, chosen: list[int]) -> None:
        self.twin.get(chosen)

    @rule(batch=st.integers(1, 9))
    def iterate(self, batch: int) -> None:
        self.twin.iterate(batch)

    @rule(query=vector, jitter=st.sampled_from([0.0, 0.25, -1.5]))
    def search_at_every_limit(self, query: int, jitter: float) -> None:
        for limit in (*self.twin.limits_now(), 16_384):
            self.twin.search(query, limit, exact=True, jitter=jitter)
            self.twin.search(query, limit, exact=False, jitter=jitter)

    @rule(
        queries=st.lists(vector, min_size=1, max_size=5), limit=st.integers(1, IDS + 2), threads=st.sampled_from([1, 2])
    )
    def search_batch(self, queries: list[int], limit: int, threads: int) -> None:
        self.twin.search_batch(queries, limit, threads)

    @rule()
    def index_some(self) -> None:
        self.twin.index_some()

    @rule()
    def repair(self) -> None:
        self.twin.repair()

    @rule(steps=st.integers(1, 7))
    def fold_some(self, steps: int) -> None:
        self.twin.fold_some(steps)

    @rule()
    def seal(self) -> None:
        self.twin.seal()

    @rule()
    def optimize(self) -> None:
        self.twin.optimize()

    @rule()
    def vacuum(self) -> None:
        self.twin.vacuum()

    @rule(kind=st.integers(0, 99))
    def reindex(self, kind: int) -> None:
        kinds = kinds_for(self.setup)
        self.twin.reindex(kinds[kind % len(kinds)])

    @rule()
    def reopen(self) -> None:
        self.twin.reopen()

    @rule()
    def backup_restore(self) -> None:
        self.twin.backup_restore()

    @rule()
    def drop_and_create(self) -> None:
        self.twin.drop_and_create()

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        assert self.twin.docs.count() == len(self.twin.model)


def run(setup: Setup, examples: int, steps: int) -> None:
    machine = type("Machine", (Machine,), {"setup": setup})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            deadline=None,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(
    "setup", [*SETUPS, *(pytest.param(setup, marks=pytest.mark.slow) for setup in RARE_SETUPS)], ids=str
)
def test_a_collection_agrees_with_a_dict_and_brute_force(setup: Setup) -> None:
    run(setup, examples=4, steps=30)


@pytest.mark.slow
@pytest.mark.parametrize("setup", [*SETUPS, *RARE_SETUPS], ids=str)
def test_a_collection_agrees_over_longer_histories(setup: Setup) -> None:
    run(setup, examples=60, steps=80)
