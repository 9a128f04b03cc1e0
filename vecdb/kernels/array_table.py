"""Many arrays as one argument of a call from Python: a table of where they are.

    table := (address, length, width) * arrays, int64      width: of a row, 1 where there is one dimension

`ArrayTable` numbers its arrays, and a kernel takes one by its number (`flat`, `matrix`). `NamedTable` is made of a
NamedTuple whose annotations say the type of each field, and a kernel takes the whole tuple (`unpack`): both sides have
the order of the fields from the one class, and a field may also be a single number, which the table itself holds.

    class Shortlist(NamedTuple):            table = NamedTable(Shortlist(keys, sizes, 0.5)).table
        keys: I64Matrix                     ... in a kernel:
        sizes: I32                          shortlist = unpack(table, Shortlist)
        weight: Real                        shortlist.keys[i, j] * shortlist.weight

What is called with every array as an argument of its own spends more on them than on a tenant of a hundred rows:
measured, fifty-eight arguments take 2.4 us where everything is in the cache, fourteen 0.8.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

# Types of the fields of a named table: (type in kernels, dimensions). A truth value counts as an Int.
Int = Annotated[int, np.int64, 0]
Real = Annotated[float, np.float32, 0]
I8 = Annotated[NDArray[np.int8], np.int8, 1]
I16 = Annotated[NDArray[np.int16], np.int16, 1]
I32 = Annotated[NDArray[np.int32], np.int32, 1]
I64 = Annotated[NDArray[np.int64], np.int64, 1]
U8 = Annotated[NDArray[np.uint8], np.uint8, 1]
U32 = Annotated[NDArray[np.uint32], np.uint32, 1]
F32 = Annotated[NDArray[np.float32], np.float32, 1]
I8Matrix = Annotated[NDArray[np.int8], np.int8, 2]
I32Matrix = Annotated[NDArray[np.int32], np.int32, 2]
I64Matrix = Annotated[NDArray[np.int64], np.int64, 2]
U8Matrix = Annotated[NDArray[np.uint8], np.uint8, 2]
F32Matrix = Annotated[NDArray[np.float32], np.float32, 2]


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


class NamedTable:
    """A NamedTuple of arrays, C-contiguous, and numbers, as its class declares them, and their table. The arrays stay
    where they are as long as the table lives; a number is that of the time when the table was made.
    """

    __slots__ = ("table", "values")

    def __init__(self, values: NamedTuple) -> None:
        self.values = values
        self.table = np.array(
            [_slot(value, *kind) for value, kind in zip(values, _kinds(type(values)), strict=True)], np.int64
        ).reshape(-1)


def _kinds(layout: type) -> list[tuple[type, int]]:
    """(type in kernels, dimensions) of each field."""
    return [hint.__metadata__ for hint in get_type_hints(layout, include_extras=True).values()]


def _slot(value: Any, dtype: type, dimensions: int) -> tuple[int, int, int]:
    if dimensions == 0:
        return (int(value) if dtype is np.int64 else int(np.float64(value).view(np.int64))), 0, 0
    assert value.dtype == dtype and value.ndim == dimensions and value.flags.c_contiguous, (value.dtype, value.shape)
    return value.__array_interface__["data"][0], len(value), value.shape[1] if dimensions == 2 else 1


def _made(context, builder, array_type, address, length, width):
    """An array value at an address. A part of numba cannot return an array that it was not given, an intrinsic can."""
    made = context.make_array(array_type)(context, builder)
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
    shape = [length, width][: array_type.ndim]
    strides = [builder.mul(width, size), size][-array_type.ndim :]
    pointer = builder.inttoptr(address, made.data.type)
    arrayobj.populate_array(made, pointer, shape, strides, size, None)
    return made._getvalue()


def _words(context, builder, table_type, table, first):
    """The three words of a slot, whose first word is number `first`."""
    words = context.make_array(table_type)(context, builder, table).data
    return [builder.load(builder.gep(words, [builder.add(first, first.type(i))])) for i in range(3)]


def _array_at(context, builder, sig, args):
    table, at, _ = args
    words = _words(context, builder, sig.args[0], table, builder.mul(at, ir.IntType(64)(3)))
    return _made(context, builder, sig.return_type, *words)


@intrinsic
def flat(typingctx, table, at, dtype):
    """Array number `at` (int64) of a bundle's table, dtype[length]."""
    return types.Array(dtype.dtype, 1, "C")(table, types.int64, dtype), _array_at


@intrinsic
def matrix(typingctx, table, at, dtype):
    """Array number `at` (int64) of a bundle's table, dtype[length, width]."""
    return types.Array(dtype.dtype, 2, "C")(table, types.int64, dtype), _array_at


@intrinsic
def unpack(typingctx, table, layout):
    """The NamedTuple of the class `layout` whose NamedTable this table (int64[3 * fields]) is."""
    cls = layout.instance_class
    members = [
        types.Array(from_dtype(np.dtype(dtype)), dimensions, "C") if dimensions else from_dtype(np.dtype(dtype))
        for dtype, dimensions in _kinds(cls)
    ]

    def codegen(context, builder, sig, args):
        values = []
        for number, member in enumerate(members):
            words = _words(context, builder, sig.args[0], args[0], ir.IntType(64)(3 * number))
            if isinstance(member, types.Array):
                values.append(_made(context, builder, member, *words))
            elif member == types.float32:
                values.append(builder.fptrunc(builder.bitcast(words[0], ir.DoubleType()), ir.FloatType()))
            else:
                values.append(words[0])
        return context.make_tuple(builder, sig.return_type, values)

    return types.BaseTuple.from_types(members, cls)(table, layout), codegen


@intrinsic
def reinterpret(typingctx, array, dtype):
    """The bytes of `array` (uint8[n]) as dtype[n / size], without a copy. Its own `view` takes a second to compile."""

    def codegen(context, builder, sig, args):
        source = context.make_array(sig.args[0])(context, builder, args[0])
        size = context.get_abi_sizeof(context.get_data_type(sig.return_type.dtype))
        nitems = source.nitems
        address = builder.ptrtoint(source.data, ir.IntType(64))
        return _made(
            context, builder, sig.return_type, address, builder.udiv(nitems, nitems.type(size)), nitems.type(1)
        )

    return types.Array(dtype.dtype, 1, "C")(array, dtype), codegen
