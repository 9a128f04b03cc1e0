"""Vectors that are spelled in a cell of text.

[0.1, 0.2]      0.1 0.2      0.1;0.2      (0.1 0.2)      {0.1,0.2}      of JSON, numpy, PostgreSQL
[np.float32(0.1), np.float32(0.2)]        array([0.1, 0.2], dtype=float32)      tensor([0.1, 0.2])
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

CUT = "..."  # what numpy prints in place of the numbers that it leaves out
_OF_NUMPY = re.compile(r"(?:np|numpy)\.\w+\(([^()]*)\)")
_SPARSE = re.compile(r"\{([0-9]+:[-+0-9.eE]+(,[0-9]+:[-+0-9.eE]+)*)?\}/[0-9]+")
_WRAPPED = re.compile(r"\w+\((\[.*\])[^\]]*\)", re.DOTALL)


def numbers(cell: str) -> list[Any]:
    """The values of a vector's cell. A value that is no number stays text, and `stack_rows` refuses it."""
    if cell[:1] == "[":
        try:
            return msgspec.json.decode(cell, type=list[float])
        except (msgspec.MsgspecError, UnicodeError):
            pass  # another notation
    text = cell.strip()
    if "(" in text:
        text = _OF_NUMPY.sub(r"\1", text)
        wrapped = _WRAPPED.fullmatch(text)
        text = wrapped[1] if wrapped else text
    words = text.strip("[](){}").replace(",", " ").replace(";", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        return words


def is_vector(cell: Any, least: int = 2) -> bool:
    """Whether a cell spells at least so many numbers, perhaps cut by numpy."""
    if not isinstance(cell, str):
        return False
    values = numbers(cell)
    if len(values) < least:
        return False
    if isinstance(values[0], float):
        return True
    return CUT in values and all(word == CUT or _is_number(word) for word in values)


def is_sparse(cell: Any) -> bool:
    """Whether a cell spells a sparse vector as pgvector does: {1:0.5,7:2}/10."""
    return isinstance(cell, str) and bool(_SPARSE.fullmatch(cell))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
