"""Other costs for the planner, for the collections that a test opens from then on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vecdb.query import planner


def set_planner_costs(patch: pytest.MonkeyPatch, docs: Any = None, **costs: float) -> None:
    """costs : fields of `PlannerCosts`.   docs : a collection that is open already; its next plans follow them, too."""
    patch.setattr(planner, "COSTS", replace(planner.COSTS, **costs))
    if docs is not None:
        docs._backend.searcher.preparation.costs = planner.COSTS
