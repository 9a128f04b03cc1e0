"""Stored elements as float32, and the bits of a float32."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from vecdb.kernels.primitives.codegen import I32


@intrinsic
def widen(typingctx, value):
    """A stored element as float32. uint16 holds the bits of a float16: numba's own half precision is emulated and slow.

    Branchless: exponent and mantissa move up 13 bits, then 2**112 corrects the exponent's bias, subnormals included.
    """
    if value not in (types.float32, types.uint16, types.int8, types.uint8):
        raise TypingError(f"no stored element type: {value}")

    def codegen(context, builder, sig, args):
        stored, element = sig.args[0], args[0]
        if stored == types.float32:
            return element
        if stored == types.int8:
            return builder.sitofp(element, ir.FloatType())
        if stored == types.uint8:
            return builder.uitofp(element, ir.FloatType())
        bits = builder.zext(element, I32)
        sign = builder.shl(builder.and_(bits, I32(0x8000)), I32(16))
        magnitude = builder.shl(builder.and_(bits, I32(0x7FFF)), I32(13))
        scaled = builder.fmul(builder.bitcast(magnitude, ir.FloatType()), ir.Constant(ir.FloatType(), 2.0**112))
        return builder.bitcast(builder.or_(builder.bitcast(scaled, I32), sign), ir.FloatType())

    return types.float32(value), codegen


@intrinsic
def float_bits(typingctx, value):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], I32)


@intrinsic
def bits_float(typingctx, value):
    """The float32 with these bits (int32)."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())
