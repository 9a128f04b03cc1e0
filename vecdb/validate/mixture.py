"""What a mixture search carries: users, each a history of ids, and how their mixture is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import BITS, CollectionConfig
from vecdb.validate.common import integer, is_int, short_repr
from vecdb.validate.ids import IdBatch, ids


@dataclass(frozen=True, slots=True)
class MixtureQuery:
    """users : distinct ids of each, at least one id; the user's own first.   components, neighbours : at least 1.
    smoothing : from 0 to 1, 0 where there are no others.
    """

    users: list[IdBatch]
    components: int
    smoothing: float
    neighbours: int


def mixture_query(
    positives: object,
    histories: object,
    limit: int,
    components: object,
    smoothing: object,
    neighbours: object,
    kind: str | None,
    config: CollectionConfig,
) -> MixtureQuery:
    """Checked arguments. kind : of the collection's ids, None where there are none yet."""
    if config.dtype == BITS:
        raise InvalidArgument("a mixture search needs vectors of numbers: those of bits have no means")
    share = _share(smoothing)
    if histories is None and share > 0.0:
        raise InvalidArgument("smoothing needs other users: pass their histories, or smoothing=0")
    users = [] if positives is None else [_user(positives, "positives", kind, config.name)]
    total = sum(user.n for user in users)
    for number, one in enumerate(_listed(histories)):
        what = f"histories[{number}]"
        if is_int(one) or isinstance(one, str):
            raise InvalidArgument(f"histories must be a list of lists of ids, one a user; {what} is {short_repr(one)}")
        users.append(_user(one, what, kind, config.name))
        total += users[-1].n
        if total > limits.history_ids_max:
            raise LimitExceeded(f"a mixture search takes at most {limits.history_ids_max:,} ids, got {total:,} or more")
    if not users:
        raise InvalidArgument(
            "a mixture search needs positives (ids of one user), or histories whose first is the user's"
        )
    if 4 * total * config.dim > limits.batch_bytes_max:
        raise LimitExceeded(
            f"a mixture search looks at {limits.batch_bytes_max:,} bytes of vectors at most, "
            f"{total:,} of dim {config.dim:,} are more: pass fewer ids"
        )
    count = integer(components, "components", 1, limits.components_max)
    if (limit + users[0].n) * count > limits.search_cells_max:
        raise LimitExceeded(
            f"limit {limit:,} and {users[0].n:,} positives, times {count:,} components, pass "
            f"{limits.search_cells_max:,} results: ask for fewer"
        )
    nearest = integer(neighbours, "neighbours", 1, limits.neighbours_max)
    return MixtureQuery(users, count, share if len(users) > 1 else 0.0, nearest)


def _share(smoothing: object) -> float:
    if isinstance(smoothing, (bool, np.bool_)) or not isinstance(smoothing, (int, float, np.integer, np.floating)):
        raise InvalidArgument(f"smoothing must be a number from 0 to 1, got {short_repr(smoothing)}")
    if not 0.0 <= smoothing <= 1.0:
        raise InvalidArgument(f"smoothing must be from 0 to 1, got {short_repr(smoothing)}")
    return float(smoothing)


def _listed(histories: object) -> Sequence[object]:
    if histories is None:
        return ()
    if not isinstance(histories, (list, tuple)):
        raise InvalidArgument(f"histories must be a list of lists of ids, got {short_repr(histories)}")
    return histories


def _user(value: object, what: str, kind: str | None, name: str) -> IdBatch:
    batch = ids(value, kind, name=name, what=what).last_only()  # type: ignore[arg-type]
    if batch.n == 0:
        raise InvalidArgument(f"{what} is empty: a user has at least one record")
    if batch.n > limits.positives_max:
        raise LimitExceeded(f"{what} has {batch.n:,} ids, a user has at most {limits.positives_max:,}")
    return batch
