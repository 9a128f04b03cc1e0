"""Asking for cache lines before they are needed.

prefetch_*  what is asked for is used again soon
stream_*    it is used once, and should leave the caches to others
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.primitives.codegen import I8, I32, I64, data_pointer

VECTOR_BYTES_MAX = 1024  # of a vector that lies anywhere are asked for: the hardware follows a longer one by itself
STREAM_BYTES_MAX = 2048  # the same where many vectors are read one after another, each far from the last
_CODE_LINES_MAX = 8  # of a code are asked for; the hardware follows from there
_USED_ONCE, _USED_AGAIN = 0, 3  # LLVM's localities: leave the caches to others, or stay in all of them


def prefetch_pointer(builder, address, locality=_USED_AGAIN):
    """Ask for the cache line at an i8*, in other intrinsics."""
    function_type = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, [address, I32(0), I32(locality), I32(1)])


def _code_prefetch(codes, blocks, locality):
    """Signature and code of both ways to ask for a code."""
    count = blocks.count

    def codegen(context, builder, sig, args):
        base = data_pointer(context, builder, sig.args[0], args[0])
        pointer = builder.gep(base, [builder.mul(args[1], I64(64 * count))])
        for line in range(min(count, _CODE_LINES_MAX)):
            address = builder.gep(pointer, [I64(64 * line)])
            prefetch_pointer(builder, address, locality)
        return context.get_dummy_value()

    return types.void(codes, types.int64, blocks), codegen


@intrinsic
def prefetch_code(typingctx, codes, row, blocks):
    """Ask for the cache lines of codes[row]; at most eight, the hardware follows from there."""
    return _code_prefetch(codes, blocks, _USED_AGAIN)


@intrinsic
def stream_code(typingctx, codes, row, blocks):
    """`prefetch_code` for one use: where a search looks at many codes once each, what the next call needs, most of all
    the interpreter's own data, stays in the second cache. Searches among tenants took a quarter less time.
    """
    return _code_prefetch(codes, blocks, _USED_ONCE)


@intrinsic
def prefetch_row(typingctx, array, row):
    """Ask for the first two cache lines of row `row` of a two-dimensional array (one line of a one-dimensional one)."""

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        base = builder.bitcast(view.data, I8.as_pointer())
        stride = cgutils.unpack_tuple(builder, view.strides, sig.args[0].ndim)[0]
        pointer = builder.gep(base, [builder.mul(args[1], stride)])
        for line in range(2 if sig.args[0].ndim == 2 else 1):
            prefetch_pointer(builder, builder.gep(pointer, [I64(64 * line)]))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


def _line_prefetch(array, locality):
    """Signature and code of both ways to ask for a line."""

    def codegen(context, builder, sig, args):
        prefetch_pointer(
            builder, builder.gep(data_pointer(context, builder, sig.args[0], args[0]), [args[1]]), locality
        )
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def prefetch_at(typingctx, array, offset):
    """Ask for the cache line at byte `offset` of a contiguous array's data."""
    return _line_prefetch(array, _USED_AGAIN)


@intrinsic
def stream_at(typingctx, array, offset):
    """`prefetch_at` for one use, as `stream_code`."""
    return _line_prefetch(array, _USED_ONCE)
