"""Answers as text, to be compared exactly."""

from __future__ import annotations

from typing import Any

import numpy as np


def written(value: Any) -> str:
    """repr(value), with arrays as type, shape and bytes: numpy needs a millisecond to write a short vector."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if type(value) is list:
        return f"[{', '.join(map(written, value))}]"
    if type(value) is dict:
        return f"{{{', '.join(f'{name!r}: {written(one)}' for name, one in value.items())}}}"
    return repr(value)
