"""What tests of the gate share: strategies for ids and texts, a configuration, the name of a parameter."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from vecdb import validate
from vecdb.schema import CollectionConfig

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def name_of(value: Any) -> str:
    """Of a parameter, without addresses: the processes that share the tests must collect the same."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def config(dim: int = 4, metric: str = "l2", dtype: str = "float32") -> CollectionConfig:
    return validate.collection_config("docs", dim, metric, None, dtype)
