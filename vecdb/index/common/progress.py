"""Progress of work that has stages of different kinds, as one count that grows evenly with time."""

from __future__ import annotations

from vecdb.index.contract import Progress


class WeightedProgress:
    """costs : what each stage is expected to take, in one unit of time.   total : of the reports; 0 makes none.

    Reports (done, total) with done = total * the share of the expected time that is over: whoever takes the rate since
    the first report for that of the rest has an honest estimate.
    """

    def __init__(self, progress: Progress, total: int, costs: dict[str, float]) -> None:
        self._progress = progress
        self._total = total
        whole = sum(costs.values()) or 1.0
        self._starts: dict[str, float] = {}
        self._shares = {name: cost / whole for name, cost in costs.items()}
        start = 0.0
        for name, share in self._shares.items():
            self._starts[name] = start
            start += share
        self._done = -1

    def report(self, stage: str, share: float) -> None:
        """So much of a stage is done (0 to 1). Reports never go back."""
        done = min(self._total, round(self._total * (self._starts[stage] + self._shares[stage] * min(1.0, share))))
        if self._progress is not None and self._total and done > self._done:
            self._done = done
            self._progress(done, self._total)

    def part(self, stage: str) -> Progress:
        """Reports of (done, total) of one stage."""
        return lambda done, total: self.report(stage, done / max(total, 1))
