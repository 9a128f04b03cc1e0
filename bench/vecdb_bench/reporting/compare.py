"""Two results of `bench run` beside each other, with a verdict that knows how much measurements differ by themselves.

Each round gives a rate at each recall (recall_curves.py). Where the results have a peer in common, what is compared is
how many times as fast as that peer vecdb was in the same round, so that the load of the machine, which both met, is
taken out; otherwise the rates themselves. The difference is that of the means of the logarithms. Its p is the share of
all ways to deal the rounds to the two results that give a difference as large (an exact permutation test).

    faster, slower     p is at most .05, and the difference at least 2 %
    the same           p is above, or the difference less
    too few rounds     no deal of so few rounds could have such a p: three each have 0.1 at best, four 0.029

Recall at the same width is compared too: it has no noise but that of which queries were asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import vecdb
from vecdb_bench.reporting import recall_curves

P_MAX = 0.05
LEAST = 0.02  # a smaller difference means nothing whatever its p
DEALS_MAX = 20_000  # ways to deal the rounds; beyond, every so many-th is looked at
_RECALL_LEAST = 0.002


def compare(a: Mapping[str, Any], b: Mapping[str, Any], subject: str = "vecdb") -> dict[str, Any]:
    """a, b : results of `bench run`, of which both have `subject`. Positive differences: b is faster.

    Raises InvalidArgument where they measured different things.
    """
    _check_alike(a, b, subject)
    peers = [name for name in a["builds"] if name in b["builds"] and name != subject]
    against = peers[0] if peers else None
    rates = [
        _verdict(a, b, subject, against, mode, target)
        for mode in a["plan"]["modes"]
        if mode in b["plan"]["modes"]
        for target in recall_curves.targets
    ]
    found = {
        "benchmark": "compare",
        "subject": subject,
        "against": against,
        "tables": {
            f"{subject} as many times as fast as {against}" if against else f"rates of {subject}": rates,
            "recall at the same width": _recalls(a, b, subject),
        },
        "machine": b["machine"],
        "notes": _notes(a, b, against),
    }
    return found


def _check_alike(a: Mapping[str, Any], b: Mapping[str, Any], subject: str) -> None:
    for result in (a, b):
        if result.get("benchmark") != "run":
            raise vecdb.InvalidArgument("compare takes two results of `vecdb bench run`")
        if subject not in result["builds"]:
            raise vecdb.InvalidArgument(f"a result has no {subject!r}; it has {', '.join(result['builds'])}")
    for name in ("name", "rows", "dim", "dtype", "metric", "queries"):
        if a["data"][name] != b["data"][name]:
            raise vecdb.InvalidArgument(
                f"the results have different data: {name} {a['data'][name]} and {b['data'][name]}"
            )
    if a["plan"]["limit"] != b["plan"]["limit"]:
        raise vecdb.InvalidArgument(f"the results have limits {a['plan']['limit']} and {b['plan']['limit']}")


def _verdict(
    a: Mapping[str, Any], b: Mapping[str, Any], subject: str, against: str | None, mode: str, target: float
) -> dict[str, Any]:
    values = [_logs(result, subject, against, mode, target) for result in (a, b)]
    row: dict[str, Any] = {"mode": mode, "recall": target}
    if not all(values):
        return row | {"a": None, "b": None, "difference": None, "p": None, "verdict": "not reached"}
    means = [sum(one) / len(one) for one in values]
    difference, p = means[1] - means[0], permutation_p(*values)
    least = 2 / math.comb(len(values[0]) + len(values[1]), len(values[0]))
    if least > P_MAX:
        verdict = "too few rounds"
    elif p > P_MAX or abs(math.expm1(difference)) < LEAST:
        verdict = "the same"
    else:
        verdict = "faster" if difference > 0 else "slower"
    shown = [math.exp(mean) for mean in means]
    return row | {"a": shown[0], "b": shown[1], "difference": math.expm1(difference), "p": p, "verdict": verdict}


def _logs(result: Mapping[str, Any], subject: str, against: str | None, mode: str, target: float) -> list[float]:
    """Of each round, the logarithm of the rate at a recall, over that of the other peer; empty where not reached."""
    rounds = min((len(p["rates"]) for p in result["points"] if p["peer"] == subject and p["mode"] == mode), default=0)
    found = []
    for number in range(rounds):
        rates = [_rate(result, name, mode, target, number) for name in (subject, against) if name is not None]
        if None in rates:
            return []
        logs = [math.log(rate) for rate in rates if rate is not None]
        found.append(logs[0] - (logs[1] if len(logs) > 1 else 0.0))
    return found


def _rate(result: Mapping[str, Any], peer: str, mode: str, target: float, number: int) -> float | None:
    curve = [
        (point["recall"], point["rates"][number])
        for point in result["points"]
        if point["peer"] == peer and point["mode"] == mode and number < len(point["rates"])
    ]
    return recall_curves.rate_at(curve, target)


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float:
    """The share of ways to deal all values into two of these sizes whose means are as far apart."""
    values, size = [*a, *b], len(a)
    total, seen = sum(values), abs(sum(b) / len(b) - sum(a) / len(a))
    step = max(1, math.comb(len(values), size) // DEALS_MAX)
    deals = list(itertools.islice(itertools.combinations(values, size), 0, None, step))
    apart = sum(abs((total - sum(deal)) / (len(values) - size) - sum(deal) / size) >= seen - 1e-12 for deal in deals)
    return max(apart, 1) / len(deals)


def _recalls(a: Mapping[str, Any], b: Mapping[str, Any], subject: str) -> list[dict[str, Any]]:
    """Recalls at the widths of both. More than two standard errors of a mean over the queries is a difference."""
    points = [
        {point["ef"]: point["recall"] for point in result["points"] if point["peer"] == subject} for result in (a, b)
    ]
    answers = a["data"]["queries"] * a["plan"]["limit"]
    rows = []
    for width in sorted(points[0].keys() & points[1].keys()):
        before, after = points[0][width], points[1][width]
        middle = (before + after) / 2
        error = 2 * math.sqrt(2 * max(middle * (1 - middle), 0.0) / answers)
        changed = abs(after - before) > max(error, _RECALL_LEAST)
        verdict = ("better" if after > before else "worse") if changed else "the same"
        rows.append({"ef": width, "a": before, "b": after, "verdict": verdict})
    return rows


def _notes(a: Mapping[str, Any], b: Mapping[str, Any], against: str | None) -> list[str]:
    notes = []
    if against is None:
        notes.append("no peer is in both: rates are compared as they are, with whatever else the machines did")
    if a["machine"]["processor"] != b["machine"]["processor"]:
        notes.append(f"different processors: {a['machine']['processor']} and {b['machine']['processor']}")
    notes.extend(
        f"{name} in {which}: {why}"
        for which, result in (("a", a), ("b", b))
        for name, why in result.get("absent", {}).items()
    )
    return notes
