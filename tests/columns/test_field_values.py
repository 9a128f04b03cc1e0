"""Records taken apart by path: the same values however many names there are, in work that follows the values."""

from __future__ import annotations

import random
from typing import Any

from vecdb.columns.field_values import by_path


class Counted(dict[str, Any]):
    """A record that counts how often it is asked for a name."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        Counted.asked += 1
        return super().get(key, default)


def plain(records: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[Any]]]:
    """What `by_path` says, one record after the other, of names without dots."""
    found: dict[str, tuple[list[int], list[Any]]] = {}

    def add(path: str, place: int, one: dict[str, Any]) -> None:
        for name, value in one.items():
            if value is not None:
                at, values = found.setdefault(path + name, ([], []))
                at.append(place)
                values.append(value)
                if type(value) is dict:
                    add(f"{path}{name}.", place, value)

    for place, record in enumerate(records):
        add("", place, record)
    return found


def test_records_with_names_of_their_own_are_not_asked_for_the_names_of_all() -> None:
    Counted.asked = 0
    found = by_path([Counted({f"name_{at}": at, "n": 1}) for at in range(500)])
    assert len(found) == 501 and Counted.asked <= 500 * 8 * 2


def test_few_names_and_many_give_what_a_walk_over_the_records_gives() -> None:
    draw = random.Random(7)
    for names in (3, 40, 1_000):
        values: list[Any] = [None, 1, "x", [1, None], {}, {"a": None}]
        records = [
            {
                f"f{draw.randrange(names)}": draw.choice([*values, {f"g{draw.randrange(names)}": draw.choice(values)}])
                for _ in range(draw.randrange(5))
            }
            for _ in range(200)
        ]
        found = {path: (places.tolist(), held) for path, (places, held) in by_path(records).items()}
        assert found == plain(records)
        dotted = by_path([*records, {"a.b": None}, {"c.d": 1}])
        assert {path: (places.tolist(), held) for path, (places, held) in dotted.items()} == {
            **found, "c.d": ([201], [1]),
        }  # fmt: skip
