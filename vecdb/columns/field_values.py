"""Records as values by path: what each field of a batch of records holds, nested maps taken apart.

A path is the name of a field, or names of fields of nested maps with dots between. What it leads to where names have
dots themselves is what `value_at` of filters says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.encoding import kind_of
from vecdb.filters.evaluate import value_at

Record = dict[str, Any]
Places = NDArray[np.int64]

_DENSE = 8  # maps are asked for each name while at least one in so many has it


def by_path(records: Sequence[Record]) -> dict[str, tuple[Places, list[Any]]]:
    """For each path: int64[n], which of the records have it, ascending, and their values, none of them None."""
    found: dict[str, tuple[Places, list[Any]]] = {}
    if not _add_maps("", np.arange(len(records)), records, found):
        _add_dotted(records, found)
    return found


def _add_maps(path: str, places: Places, maps: Sequence[Record], found: dict[str, tuple[Places, list[Any]]]) -> bool:
    """The fields of maps under a path (and a dot), at whatever depth. Returns False where a name has a dot."""
    for name, of, values in _fields(places, maps):
        if "." in name:
            return False
        if not values:
            continue
        found[path + name] = of, values
        if dict in set(map(type, values)):
            at = [place for place, value in enumerate(values) if type(value) is dict]
            if not _add_maps(f"{path}{name}.", of[at], [values[place] for place in at], found):
                return False
    return True


def _fields(places: Places, maps: Sequence[Record]) -> Iterator[tuple[str, Places, list[Any]]]:
    """Each name that some of the maps have, with their places and values, none of them None."""
    names: set[str] = set().union(*maps)
    if len(names) * len(maps) <= _DENSE * sum(map(len, maps)):
        for name in names:
            yield name, *_without_none(places, [one.get(name) for one in maps])
        return
    held: dict[str, tuple[list[int], list[Any]]] = {name: ([], []) for name in names}
    for at, one in enumerate(
        maps
    ):  # asking every map for every name would be quadratic where each has names of its own
        for name, value in one.items():
            if value is not None:
                held[name][0].append(at)
                held[name][1].append(value)
    for name, (ats, values) in held.items():
        yield name, places[np.array(ats, np.int64)], values


def _add_dotted(records: Sequence[Record], found: dict[str, tuple[Places, list[Any]]]) -> None:
    """The same for records of which some have names with dots: each is asked for each of its paths."""
    found.clear()
    parts: dict[str, tuple[list[int], list[Any]]] = {}
    for place, record in enumerate(records):
        paths: dict[str, None] = {}
        waiting = [("", record)]
        while waiting:
            path, one = waiting.pop()
            for name, value in one.items():
                paths[path + name] = None
                if isinstance(value, dict):
                    waiting.append((f"{path}{name}.", value))
        for path in paths:
            value = value_at(record, path)
            if value is not None:
                at, values = parts.setdefault(path, ([], []))
                at.append(place)
                values.append(value)
    found.update({path: (np.array(at, np.int64), values) for path, (at, values) in parts.items()})


def _without_none(places: Places, values: list[Any]) -> tuple[Places, list[Any]]:
    if type(None) not in set(map(type, values)):
        return places, values
    kept = [at for at, value in enumerate(values) if value is not None]
    return places[kept], [values[at] for at in kept]


def by_kind(places: Places, values: list[Any]) -> dict[str, tuple[Places, list[Any]]]:
    """The same values, apart by kind (encoding.py)."""
    types = set(map(type, values))
    if len(types) == 1:
        [only] = types
        if only in (str, float, bool, bytes, list, dict):
            return {kind_of(values[0]): (places, values)}
    kinds = [kind_of(value) for value in values]
    found: dict[str, tuple[Places, list[Any]]] = {}
    for kind in dict.fromkeys(kinds):
        chosen = [at for at, one in enumerate(kinds) if one == kind]
        found[kind] = places[chosen], [values[at] for at in chosen]
    return found


def elements(places: Places, lists: list[list[Any]]) -> tuple[Places, list[Any]]:
    """Values in lists, each with the place of its list; lists, maps and None among them are left out."""
    of = np.repeat(places, [len(one) for one in lists])
    flat = [value for one in lists for value in one]
    if {type(None), list, dict} & set(map(type, flat)):
        kept = [at for at, value in enumerate(flat) if value is not None and type(value) not in (list, dict)]
        return of[kept], [flat[at] for at in kept]
    return of, flat
