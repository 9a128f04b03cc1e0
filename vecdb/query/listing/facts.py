"""What fields records have, and which values: counts of values, distinct ones, the smallest and largest, types.

Of live records, and of those that match a filter and that tenants see; each answer is of one committed state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from vecdb.columns import statistics
from vecdb.columns.column_set import ColumnView
from vecdb.errors import InvalidArgument
from vecdb.filters.evaluate import TYPES, value_at
from vecdb.filters.tree import Node
from vecdb.query.listing.order import group_and_value, sort_key
from vecdb.query.listing.pages import ListedState, Listing
from vecdb.schema import Facets
from vecdb.validate import short_repr

_ADDED_RECORDS = 1_024  # whose paths without a column are counted at once


class FieldFacts:
    """Facts of one collection's fields."""

    def __init__(self, listing: Listing) -> None:
        self._reading = listing.reading

    def facets(self, field: str, node: Node | None, limit: int, tenants: tuple[str, ...]) -> Facets:
        """How many records have each value: the `limit` most frequent, largest first, ties by value."""
        counts = [(value, count) for (_, value), count in self._counts(field, node, tenants, limit).items()]
        return Facets(sorted(counts, key=lambda one: (-one[1], *sort_key(one[0])))[:limit])

    def distinct(self, field: str, node: Node | None, tenants: tuple[str, ...]) -> list[Any]:
        """The values, in their order."""
        return sorted((value for _, value in self._counts(field, node, tenants)), key=sort_key)

    def _counts(
        self, field: str, node: Node | None, tenants: tuple[str, ...], most: int | None = None
    ) -> statistics.Counts:
        with self._reading(tenants, node, known=True) as listed:
            view = listed.view()
            counts = None if view is None else statistics.value_counts(view, field, listed.rows, most)
            if counts is None:
                counts = statistics.count_values(value_at(one.fields, field) for one in listed.each(listed.rows))
            return counts

    def extreme(self, field: str, node: Node | None, tenants: tuple[str, ...], *, largest: bool) -> Any:
        """The smallest or largest value, None where there is none. Raises InvalidArgument where values have no order
        with one another.
        """
        with self._reading(tenants, node, known=True) as listed:
            view = listed.view()
            ends = None if view is None else statistics.extremes(view, field, listed.rows)
            if ends is None:
                values = (value_at(one.fields, field) for one in listed.each(listed.rows))
                some = statistics.count_values(value for value in values if not isinstance(value, list))
                ends = [(value, value) for _, value in some if value == value]
        if len({group_and_value(value)[0] for value, _ in ends}) > 1:
            types = sorted({type(value).__name__ for value, _ in ends})
            raise InvalidArgument(
                f"field {short_repr(field)} holds {' and '.join(types)}, which have no order with one another: give a "
                "filter, such as an order with a value of the type that is meant"
            )
        choose: Callable[..., Any] = max if largest else min
        return choose((pair[largest] for pair in ends), key=sort_key, default=None)

    def fields(self, tenants: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """Of each field, and of each path into maps: the types of its values, and how many records have one."""
        with self._reading(tenants, None, known=True) as listed:
            view = listed.view()
            found = {} if view is None else statistics.types_and_counts(view, listed.rows)
            if view is None or view.missing:
                _add_from_records(found, view or ColumnView(), listed)
        return {path: {"types": _type_names(found[path][0]), "count": found[path][1]} for path in sorted(found)}


def _add_from_records(found: dict[str, tuple[set[str], int]], view: ColumnView, listed: ListedState) -> None:
    some: list[dict[str, Any]] = []
    for record in listed.each(listed.rows):
        some.append(record.fields)
        if len(some) == _ADDED_RECORDS:
            statistics.add_types(found, view, some)
            some = []
    if some:
        statistics.add_types(found, view, some)


def _type_names(kinds: Iterable[str]) -> list[str]:
    names = {"datetime" if kind == "instant" else kind for kind in kinds}
    return [name for name in TYPES if name in names]
