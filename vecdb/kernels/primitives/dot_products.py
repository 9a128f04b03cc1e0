"""Dot products of 8-bit codes and of packed codes with an int8 query, by the best instruction of the compile target.

    dot_codes   uint8 codes x int8 query           AVX-512 VNNI | AVX-VNNI | AVX2 pmaddwd | plain vectors
    dot_words   int16 codes x int16 query          AVX-512 VNNI | AVX2 pmaddwd | plain vectors
    dot_packed  1, 2, 4, 8-bit codes x int8 query  VNNI | AVX2 pmaddubsw | plain vectors

Every path gives the same integers (codegen.py says how a path is chosen).
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.primitives.codegen import (
    I8,
    I16,
    I32,
    I64,
    call_intrinsic,
    data_pointer,
    load_unaligned,
    target_features,
)

_UNROLL_BLOCKS_MAX = 6  # more 64-byte blocks than this are looped over, to keep compile time and code small
_WORD_SUMS = 2  # of `dot_words`, added to in turn
_SHAPES = {"vnni512": (16, 1), "vnni256": (8, 2), "avx2": (8, 4), "plain": (16, 4)}  # lanes, accumulators


def dot_path(context) -> str:
    """Which instruction `dot_codes` uses for this compile target."""
    arch, _, enabled = target_features(context)
    if arch == "x86_64":
        if {"avx512vnni", "avx512f"} <= enabled:
            return "vnni512"
        if "avxvnni" in enabled or {"avx512vnni", "avx512vl"} <= enabled:
            return "vnni256"
        if "avx2" in enabled:
            return "avx2"
    return "plain"


def _add_products(builder, path, codes, query8, query16, chunk, sums):
    """Add the products of 64-byte block number `chunk` (an i64 value) to the accumulators."""
    start = builder.mul(chunk, I64(64))
    out = []
    if path == "vnni512":
        vector = ir.VectorType(I32, 16)
        c, q = (load_unaligned(builder, p, start, vector) for p in (codes, query8))
        return [call_intrinsic(builder, "llvm.x86.avx512.vpdpbusd.512", vector, [sums[0], c, q])]
    if path == "vnni256":
        vector = ir.VectorType(I32, 8)
        for part, total in enumerate(sums):
            at = builder.add(start, I64(32 * part))
            c, q = (load_unaligned(builder, p, at, vector) for p in (codes, query8))
            out.append(call_intrinsic(builder, "llvm.x86.avx512.vpdpbusd.256", vector, [total, c, q]))
        return out
    for part, total in enumerate(sums):
        at = builder.add(start, I64(16 * part))
        c = load_unaligned(builder, codes, at, ir.VectorType(I8, 16))
        if path == "avx2":
            # pmaddubsw would saturate at 2 * 255 * 127: widen to 16 bits instead, the query once per search.
            wide = ir.VectorType(I16, 16)
            q = load_unaligned(builder, query16, builder.mul(at, I64(2)), wide)
            pairs = call_intrinsic(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [builder.zext(c, wide), q])
        else:
            wide = ir.VectorType(I32, 16)
            q = load_unaligned(builder, query8, at, ir.VectorType(I8, 16))
            pairs = builder.mul(builder.zext(c, wide), builder.sext(q, wide))
        out.append(builder.add(total, pairs))
    return out


@intrinsic
def dot_codes(typingctx, codes, row, query8, query16, blocks):
    """sum over i of codes[row, i] * query[i], int32.

    codes : uint8[n, 64 * len(blocks)], C-contiguous.   row : int64.
    query8, query16 : the same query as int8 and int16 [64 * len(blocks)]; each target reads the one it likes.
    blocks : a tuple whose length, a compile-time constant, is the number of 64-byte blocks of a code.
    """
    count = blocks.count
    signature = types.int32(codes, types.int64, query8, query16, blocks)

    def codegen(context, builder, sig, args):
        path = dot_path(context)
        lanes, accumulators = _SHAPES[path]
        base = data_pointer(context, builder, sig.args[0], args[0])
        pointer = builder.gep(base, [builder.mul(args[1], I64(64 * count))])
        q8, q16 = (data_pointer(context, builder, sig.args[i], args[i]) for i in (2, 3))
        vector = ir.VectorType(I32, lanes)
        sums = [ir.Constant(vector, [0] * lanes)] * accumulators
        if count <= _UNROLL_BLOCKS_MAX:
            for block in range(count):
                sums = _add_products(builder, path, pointer, q8, q16, I64(block), sums)
        else:
            slots = [cgutils.alloca_once_value(builder, zero) for zero in sums]
            for slot, zero in zip(slots, sums, strict=True):
                builder.store(zero, slot)
            with cgutils.for_range(builder, I64(count)) as loop:
                now = [builder.load(slot) for slot in slots]
                after = _add_products(builder, path, pointer, q8, q16, loop.index, now)
                for slot, value in zip(slots, after, strict=True):
                    builder.store(value, slot)
            sums = [builder.load(slot) for slot in slots]
        while len(sums) > 1:
            sums = [builder.add(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return call_intrinsic(builder, f"llvm.vector.reduce.add.v{lanes}i32", I32, [sums[0]])

    return signature, codegen


def _add_word_products(builder, path, codes, query, chunk, total):
    """`total` plus the products of 64-byte block number `chunk` (an i64 value), 32 int16 each."""
    start = builder.mul(chunk, I64(64))
    if path == "vnni512":
        vector = ir.VectorType(I32, 16)
        c, q = (load_unaligned(builder, pointer, start, vector) for pointer in (codes, query))
        return call_intrinsic(builder, "llvm.x86.avx512.vpdpwssd.512", vector, [total, c, q])
    for part in range(2):
        at = builder.add(start, I64(32 * part))
        c, q = (load_unaligned(builder, pointer, at, ir.VectorType(I16, 16)) for pointer in (codes, query))
        if path == "plain":
            wide = ir.VectorType(I32, 16)
            product = builder.mul(builder.sext(c, wide), builder.sext(q, wide))
        else:
            product = call_intrinsic(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [c, q])
        total = builder.add(total, product)
    return total


@intrinsic
def dot_words(typingctx, codes, row, query8, blocks):
    """sum over i of codes[row, i] * query[i], int32, of the int16 that the bytes are.

    codes : uint8[n, 64 * len(blocks)], C-contiguous.   row : int64.   query8 : the query's bytes, int8[64 *
    len(blocks)].   No element is -2**15, and the product of the two lengths is below 2**31, so that no order of the sum
    overflows.
    """
    count = blocks.count
    signature = types.int32(codes, types.int64, query8, blocks)

    def codegen(context, builder, sig, args):
        path = dot_path(context)
        lanes = 8 if path in ("avx2", "vnni256") else 16
        base = data_pointer(context, builder, sig.args[0], args[0])
        pointer = builder.gep(base, [builder.mul(args[1], I64(64 * count))])
        query = data_pointer(context, builder, sig.args[2], args[2])
        zero = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        sums = [zero] * min(count, _WORD_SUMS)
        looped = 0
        if count > _UNROLL_BLOCKS_MAX:
            looped = count - count % _WORD_SUMS
            slots = [cgutils.alloca_once_value(builder, zero) for _ in sums]
            for slot in slots:
                builder.store(zero, slot)
            with cgutils.for_range(builder, I64(looped // _WORD_SUMS)) as loop:
                first = builder.mul(loop.index, I64(_WORD_SUMS))
                for i, slot in enumerate(slots):
                    chunk = builder.add(first, I64(i))
                    now = builder.load(slot)
                    builder.store(_add_word_products(builder, path, pointer, query, chunk, now), slot)
            sums = [builder.load(slot) for slot in slots]
        for block in range(looped, count):
            i = block % _WORD_SUMS
            sums[i] = _add_word_products(builder, path, pointer, query, I64(block), sums[i])
        total = sums[0]
        for one in sums[1:]:
            total = builder.add(total, one)
        return call_intrinsic(builder, f"llvm.vector.reduce.add.v{lanes}i32", I32, [total])

    return signature, codegen


def _zero_extended(builder, low):
    """Sixteen bytes as thirty-two, the upper half zero."""
    zeros = ir.Constant(low.type, [0] * 16)
    places = ir.Constant(ir.VectorType(I32, 32), list(range(32)))
    return builder.shuffle_vector(low, zeros, places)


def _add_packed_products(context, builder, bits, chunk, parts, total):
    """`total` (<8 x i32>) plus the products of 32 code bytes with the query parts that their bit fields belong to."""
    _, _, enabled = target_features(context)
    path = dot_path(context)
    vnni = path == "vnni256" or (path == "vnni512" and "avx512vl" in enabled)
    bytes32, words16, words32 = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    pairs = None
    for field, query in enumerate(parts):
        codes = chunk
        if bits < 8:
            moved = builder.bitcast(chunk, words16)
            if field:
                moved = builder.lshr(moved, ir.Constant(words16, [field * bits] * 16))
            codes = builder.and_(builder.bitcast(moved, bytes32), ir.Constant(bytes32, [(1 << bits) - 1] * 32))
        if vnni:
            fields = [builder.bitcast(value, words32) for value in (codes, query)]
            total = call_intrinsic(builder, "llvm.x86.avx512.vpdpbusd.256", words32, [total, *fields])
        elif path != "plain" and bits < 8:
            # four fields of 4 bits and a signed byte stay inside 16 bits: 2 * 2 * 15 * 127 < 2**15
            product = call_intrinsic(builder, "llvm.x86.avx2.pmadd.ub.sw", words16, [codes, query])
            pairs = product if pairs is None else builder.add(pairs, product)
        else:
            for half in (0, 16):
                places = ir.Constant(ir.VectorType(I32, 16), list(range(half, half + 16)))
                c, q = (builder.shuffle_vector(value, value, places) for value in (codes, query))
                c, q = builder.zext(c, words16), builder.sext(q, words16)
                if path == "plain":
                    wide = ir.VectorType(I32, 16)
                    product = builder.mul(builder.zext(c, wide), builder.sext(q, wide))
                    for part in (0, 8):
                        eight = ir.Constant(ir.VectorType(I32, 8), list(range(part, part + 8)))
                        total = builder.add(total, builder.shuffle_vector(product, product, eight))
                else:
                    total = builder.add(total, call_intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words32, [c, q]))
    if pairs is not None:
        ones = ir.Constant(words16, [1] * 16)
        total = builder.add(total, call_intrinsic(builder, "llvm.x86.avx2.pmadd.wd", words32, [pairs, ones]))
    return total


@intrinsic
def dot_packed(typingctx, codes, offset, width, query8, bits):
    """sum over d of code[d] * query8[d], int32, for one packed code.

    codes : uint8, contiguous; the code is its `width` bytes (a multiple of 16) from byte `offset` (both int64).
    bits : a tuple whose length B, a compile-time constant, is 1, 2, 4 or 8: byte j holds the fields of dimensions
    j, j + width, j + 2 width, ..., the first in its lowest bits.   query8 : int8[width * 8 / B], within +-127.
    """
    count = bits.count
    signature = types.int32(codes, types.int64, types.int64, query8, bits)

    def codegen(context, builder, sig, args):
        base = builder.gep(data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        query = data_pointer(context, builder, sig.args[3], args[3])
        width = args[2]
        words32 = ir.VectorType(I32, 8)
        slot = cgutils.alloca_once_value(builder, ir.Constant(words32, [0] * 8))
        builder.store(ir.Constant(words32, [0] * 8), slot)

        def parts_at(at, vector):
            starts = [builder.add(builder.mul(width, I64(field)), at) for field in range(8 // count)]
            return [load_unaligned(builder, query, start, vector) for start in starts]

        with cgutils.for_range(builder, builder.lshr(width, I64(5))) as loop:
            at = builder.shl(loop.index, I64(5))
            vector = ir.VectorType(I8, 32)
            chunk, parts = load_unaligned(builder, base, at, vector), parts_at(at, vector)
            builder.store(_add_packed_products(context, builder, count, chunk, parts, builder.load(slot)), slot)
        with builder.if_then(builder.icmp_unsigned("!=", builder.and_(width, I64(16)), I64(0))):
            at = builder.and_(width, I64(-32))
            vector = ir.VectorType(I8, 16)
            chunk = _zero_extended(builder, load_unaligned(builder, base, at, vector))
            parts = [_zero_extended(builder, part) for part in parts_at(at, vector)]
            builder.store(_add_packed_products(context, builder, count, chunk, parts, builder.load(slot)), slot)
        return call_intrinsic(builder, "llvm.vector.reduce.add.v8i32", I32, [builder.load(slot)])

    return signature, codegen
