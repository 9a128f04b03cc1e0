"""How every kernel is compiled. `kernel` for what Python calls, `part` for what only kernels call.

A part has no Python wrapper and neither has a C callback: each wrapper costs 50-100 ms of compiling. The error model is
numpy's (division by zero gives inf), because kernels guard their divisions. Callers pass np.int64(0) rather than 0 to a
part: a literal has a type of its own and would compile the part once more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit

# Sums may be reordered so that they vectorise; NaN and infinity keep their meaning (never fastmath=True).
FAST = {"contract", "reassoc", "nsz", "arcp"}

# No reference counting: kernels allocate nothing and return no array, and numba would count references to every array
# that a part is handed, two atomic operations a distance (measured: 10 ns a row of a 64-byte code with it, 2.5
# without).
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
kernel = partial(njit, cache=True, **_OPTIONS)
part = partial(kernel, no_cpython_wrapper=True)
# A small part called once a row: arrays passed by value are thirty words on the stack, so it is always inlined.
inlined = partial(part, forceinline=True)
# The same for what is chosen by the types of its arguments (numba.extending.overload).
PART_OPTIONS = {**_OPTIONS, "no_cpython_wrapper": True}
INLINED_OPTIONS = {**PART_OPTIONS, "forceinline": True}


def entry_of(function: Any, *arguments: Any) -> Callable[..., Any]:
    """What a call of a kernel with such arguments reaches once numba has looked at the type of each: half of what the
    call costs. It is to be called with arguments of the same types, positional; of arrays it looks at dtype and
    dimensions, not at whether they may be written.
    """
    types = tuple(function.typeof_pyval(one) for one in arguments)
    known = function.overloads.get(types)  # `compile` would wait for what another thread compiles
    entry: Callable[..., Any] = function.compile(types) if known is None else known.entry_point
    return entry
