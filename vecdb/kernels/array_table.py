"""Many arrays as one argument of a call from Python: a table of where they are.

    table := (address, length, width) * arrays, int64      width: of a row, 1 where there is one dimension

What is called with every array as an argument of its own spends more on them than on a tenant of a hundred rows:
measured, fifty-eight arguments take 2.4 us where everything is in the cache, fourteen 0.8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray


class ArrayTable:
    """Arrays, C-contiguous, of one or two dimensions, and their table. The arrays stay where they are as long as the
    bundle lives.
    """

    __slots__ = ("arrays", "table")

    def __init__(self, *arrays: NDArray[Any]) -> None:
        assert all(one.flags.c_contiguous and one.ndim in (1, 2) for one in arrays)
        self.arrays = arrays
        self.table = np.array(
            [(one.__array_interface__["data"][0], len(one), one.shape[1] if one.ndim == 2 else 1) for one in arrays],
            np.int64,
        ).reshape(-1)


def _array_at(dimensions):
    """The codegen of an array of so many dimensions. A part of numba cannot return an array that it was not given."""

    def codegen(context, builder, sig, args):
        table, at, _ = args
        words = context.make_array(sig.args[0])(context, builder, table).data
        first = builder.mul(at, ir.IntType(64)(3))
        address, length, width = (
            builder.load(builder.gep(words, [builder.add(first, first.type(i))])) for i in range(3)
        )
        made = context.make_array(sig.return_type)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(sig.return_type.dtype)))
        shape = [length, width][:dimensions]
        strides = [builder.mul(width, size), size][-dimensions:]
        pointer = builder.inttoptr(address, made.data.type)
        arrayobj.populate_array(made, pointer, shape, strides, size, None)
        return made._getvalue()

    return codegen


@intrinsic
def flat(typingctx, table, at, dtype):
    """Array number `at` (int64) of a bundle's table, dtype[length]."""
    return types.Array(dtype.dtype, 1, "C")(table, types.int64, dtype), _array_at(1)


@intrinsic
def matrix(typingctx, table, at, dtype):
    """Array number `at` (int64) of a bundle's table, dtype[length, width]."""
    return types.Array(dtype.dtype, 2, "C")(table, types.int64, dtype), _array_at(2)
