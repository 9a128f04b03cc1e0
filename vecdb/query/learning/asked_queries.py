"""A small sample of the queries that were really asked, kept in memory alone.

    search -> offer -> rows [capacity, dim] -> maintenance takes a copy and measures recall on it

Vectors that are stored stand in badly for queries of another distribution: a width learned on the word vectors of
GloVe reached .85 on means and differences of them, and .94 on the vectors themselves.

Threads: any number call `offer`, which takes the lock only for a query that is kept; counts of queries are not exact.
"""

from __future__ import annotations

import random
import threading

import numpy as np
from numpy.typing import NDArray

_SAMPLE_BYTES = 1 << 20
_SAMPLE_QUERIES = 256
_ENOUGH = 64  # fewer say little
_FIRST_CHECK = 1_000  # queries asked before recall is measured on them, and ever twice as many from then on


class AskedQueries:
    """A uniform sample of queries, in which those before the last check have half the weight once they are many
    (Algorithm R, Vitter, 1985; the places of the next ones to keep are drawn ahead).
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        capacity = max(_ENOUGH, min(_SAMPLE_QUERIES, _SAMPLE_BYTES // (4 * dim)))
        self._rows = np.zeros((capacity, dim), np.float32)
        self._random = random.Random(dim)
        self._seen = 0
        self._next = 0  # the query of this number is kept
        self._since_check = 0
        self._check_after = _FIRST_CHECK
        self._lock = threading.Lock()

    def passes_one(self) -> bool:
        """Whether the next query is neither to be kept nor makes a check due; then it counts as asked."""
        since, seen = self._since_check + 1, self._seen + 1
        if seen > self._next or since == self._check_after:
            return False
        self._since_check, self._seen = since, seen
        return True

    def offer(self, queries: NDArray[np.float32]) -> bool:
        """Queries float32[nq, dim] are asked. Returns whether with them a check has become due."""
        asked = len(queries)
        before = self._since_check
        self._since_check = before + asked
        if self._seen + asked > self._next:
            with self._lock:
                self._keep(queries)
        else:
            self._seen += asked
        return before < self._check_after <= before + asked

    def _keep(self, queries: NDArray[np.float32]) -> None:
        capacity, seen = len(self._rows), self._seen
        self._seen = seen + len(queries)
        while self._next < seen + len(queries):
            number = self._next
            place = number if number < capacity else self._random.randrange(capacity)
            self._rows[place] = queries[max(0, number - seen)]
            # the gap to the next one that is kept is geometric with mean number / capacity
            gap = 1 if number < capacity else 1 + int(self._random.expovariate(capacity / (number + 1)))
            self._next = number + gap

    @property
    def check_is_due(self) -> bool:
        return self._since_check >= self._check_after and self._seen >= _ENOUGH

    def take(self) -> NDArray[np.float32]:
        """float32[n, dim], a copy of the sample, no rows where there are too few; a check has been made with it."""
        with self._lock:
            kept = min(self._seen, len(self._rows))
            if self.check_is_due:
                self._check_after *= 2
            self._since_check = 0
            # newer queries get more weight: those before the check count half
            if self._seen > 2 * len(self._rows):
                self._seen //= 2
                self._next = min(self._next, self._seen + self._seen // len(self._rows))
            return self._rows[: kept if kept >= _ENOUGH else 0].copy()
