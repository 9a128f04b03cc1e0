"""Counts of bits, and products of 1-bit codes with a query of three bits, one code at a time or a panel of 32 at once.

differing_bits  of a code and a query, 64 at once
word_bits       of eight bytes and eight others: those that differ, or those that both have
bit_products    population counts
estimate_panel  the same for 32 rows, by table lookups   AVX2 pshufb | Arm tbl | one by one
lowest_bit      the first row of a panel's answer
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
from vecdb.kernels.primitives.dot_products import dot_path

PANEL_ROWS = 32  # rows whose codes of one bit lie together, see `estimate_panel`
_SUMMED_MAX = 4  # bytes of a row, two entries of at most 28 each, whose sum fits a byte
_UNROLL_WORDS_MAX = 16  # more words than this are looped over


@intrinsic
def popcount(typingctx, bits):
    """How many bits of an int32 are set, int32."""
    return types.int32(types.int32), lambda context, builder, sig, args: call_intrinsic(
        builder, "llvm.ctpop.i32", I32, [args[0]]
    )


@intrinsic
def word_bits(typingctx, a, at, b, begin, both):
    """Of the eight bytes of `a` (uint8[any]) from `at` and of `b` from `begin`: how many bits differ, int64.
    both : None; or True, a literal: how many bits both have.
    """
    signature = types.int64(a, types.int64, b, types.int64, both)
    combine = "xor" if both is types.none else "and_"

    def codegen(context, builder, sig, args):
        words = [
            load_unaligned(builder, data_pointer(context, builder, sig.args[i], args[i]), args[i + 1], I64)
            for i in (0, 2)
        ]
        return call_intrinsic(builder, "llvm.ctpop.i64", I64, [getattr(builder, combine)(*words)])

    return signature, codegen


@intrinsic
def differing_bits(typingctx, codes, row, query8, blocks):
    """How many bits of codes[row] and the query differ, int32.

    codes : uint8[n, 64 * len(blocks)], C-contiguous.   row : int64.   query8 : int8[64 * len(blocks)].   blocks : a
    tuple whose length, a compile-time constant, is the number of 64-byte blocks of a code.
    """

    def codegen(context, builder, sig, args):
        words = 8 * sig.args[3].count
        code = builder.gep(data_pointer(context, builder, sig.args[0], args[0]), [builder.mul(args[1], I64(8 * words))])
        query = data_pointer(context, builder, sig.args[2], args[2])

        def added(at, total):
            offset = builder.shl(at, I64(3))
            differing = builder.xor(*(load_unaligned(builder, base, offset, I64) for base in (code, query)))
            return builder.add(total, call_intrinsic(builder, "llvm.ctpop.i64", I64, [differing]))

        total = I64(0)
        if words <= _UNROLL_WORDS_MAX:
            for word in range(words):
                total = added(I64(word), total)
        else:
            place = cgutils.alloca_once_value(builder, total)
            builder.store(total, place)
            with cgutils.for_range(builder, I64(words // 8)) as loop:
                total = builder.load(place)
                for word in range(8):
                    total = added(builder.add(builder.shl(loop.index, I64(3)), I64(word)), total)
                builder.store(total, place)
            total = builder.load(place)
        return builder.trunc(total, I32)

    return types.int32(codes, types.int64, query8, blocks), codegen


@intrinsic
def bit_products(typingctx, words, at, planes, count):
    """sum over d of code[d] * query[d], int64, for a code of one bit and a query of three, in two's complement.

    words : uint64[any]; the code is len(count) of them, a compile-time constant, from word `at` (int64) on.
    planes : uint64[3, len(count)], the bits of the query that count 1, 2 and -4.   One population count after another:
    processors do three or four of them a cycle, where LLVM's vector code for it takes twice the time.
    """
    length = count.count
    signature = types.int64(words, types.int64, planes, count)

    def codegen(context, builder, sig, args):
        base = builder.gep(data_pointer(context, builder, sig.args[0], args[0]), [builder.shl(args[1], I64(3))])
        query = data_pointer(context, builder, sig.args[2], args[2])

        def add(at, sums):
            offset = builder.shl(at, I64(3))
            word = load_unaligned(builder, base, offset, I64)
            out = []
            for plane, total in enumerate(sums):
                bits = load_unaligned(builder, query, builder.add(offset, I64(8 * length * plane)), I64)
                out.append(
                    builder.add(total, call_intrinsic(builder, "llvm.ctpop.i64", I64, [builder.and_(word, bits)]))
                )
            return out

        sums = [I64(0)] * 3
        if length <= _UNROLL_WORDS_MAX:
            for word in range(length):
                sums = add(I64(word), sums)
        else:
            places = [cgutils.alloca_once_value(builder, zero) for zero in sums]
            for place, zero in zip(places, sums, strict=True):
                builder.store(zero, place)
            with cgutils.for_range(builder, I64(length)) as loop:
                after = add(loop.index, [builder.load(place) for place in places])
                for place, value in zip(places, after, strict=True):
                    builder.store(value, place)
            sums = [builder.load(place) for place in places]
        low, middle, top = sums
        return builder.sub(builder.add(low, builder.shl(middle, I64(1))), builder.shl(top, I64(2)))

    return signature, codegen


def _table_lookup(context, builder, table, places):
    """table[places], <32 x i8>, for the table's sixteen bytes <16 x i8> and places <32 x i8> below sixteen."""
    arch, _, enabled = target_features(context)
    both = [ir.Constant(ir.VectorType(I32, 16), list(range(first, first + 16))) for first in (0, 16)]
    all_places = ir.Constant(ir.VectorType(I32, 32), list(range(32)))
    if arch == "x86_64" and ("avx2" in enabled or dot_path(context) != "plain"):
        twice = builder.shuffle_vector(table, table, all_places)
        return call_intrinsic(builder, "llvm.x86.avx2.pshuf.b", places.type, [twice, places])
    if arch in ("aarch64", "arm64"):
        halves = [builder.shuffle_vector(places, places, half) for half in both]
        found = [call_intrinsic(builder, "llvm.aarch64.neon.tbl1.v16i8", table.type, [table, half]) for half in halves]
        return builder.shuffle_vector(found[0], found[1], all_places)
    found = places
    for lane in range(32):
        entry = builder.extract_element(table, builder.zext(builder.extract_element(places, I32(lane)), I32))
        found = builder.insert_element(found, entry, I32(lane))
    return found


def _panel_products(context, builder, base, entries, width):
    """<32 x i16>: what the tables' entries come to for each row of the panel at `base`."""
    bytes32, words = ir.VectorType(I8, PANEL_ROWS), ir.VectorType(I16, PANEL_ROWS)
    total = cgutils.alloca_once_value(builder, ir.Constant(words, [0] * PANEL_ROWS))
    builder.store(ir.Constant(words, [0] * PANEL_ROWS), total)
    with cgutils.for_range(builder, I64(width // _SUMMED_MAX)) as loop:
        first = builder.mul(loop.index, I64(_SUMMED_MAX))
        part = ir.Constant(bytes32, [0] * PANEL_ROWS)
        for step in range(_SUMMED_MAX):
            start = builder.shl(builder.add(first, I64(step)), I64(5))
            codes = load_unaligned(builder, base, start, bytes32)
            halves = (
                builder.and_(codes, ir.Constant(bytes32, [15] * PANEL_ROWS)),
                builder.lshr(codes, ir.Constant(bytes32, [4] * PANEL_ROWS)),
            )
            for half, places in enumerate(halves):
                table = load_unaligned(builder, entries, builder.add(start, I64(16 * half)), ir.VectorType(I8, 16))
                part = builder.add(part, _table_lookup(context, builder, table, places))
        builder.store(builder.add(builder.load(total), builder.zext(part, words)), total)
    return builder.load(total)


@intrinsic
def estimate_panel(typingctx, panels, at, tables, weight, step, shift, bound, out, count):
    """The 32 rows of a panel: out[r] = weight * add[r] + rescale[r] * step * (product[r] - shift), float32, where
    product[r] is the sum over d of code[r, d] * query[d] and a constant. Returns those within the bound, a bit a row,
    the first the lowest: uint32.

    panels : uint8; the panel is from byte `at` (int64) on, see one_bit_fastscan.py; byte j of row r's code is at 32 j
    + r. tables : uint8[16 len(count), 16], what four bits come to, at most 28: two tables for each byte, its lower and
    its upper half.   weight, step, shift, bound : float32.   out : float32[32].   count : as for `bit_products`.
    Sixteen entries are one register, and one instruction looks up 32 rows (Andre, Kermarrec and Le Scouarnec, 2015).
    """
    width = 8 * count.count
    f32 = types.float32
    signature = types.uint32(panels, types.int64, tables, f32, f32, f32, f32, out, count)

    def codegen(context, builder, sig, args):
        floats = ir.VectorType(ir.FloatType(), PANEL_ROWS)
        base = builder.gep(data_pointer(context, builder, sig.args[0], args[0]), [args[1]])
        entries = data_pointer(context, builder, sig.args[2], args[2])
        lanes = ir.Constant(ir.VectorType(I32, PANEL_ROWS), [0] * PANEL_ROWS)

        def everywhere(value):
            one = builder.insert_element(ir.Constant(floats, ir.Undefined), value, I32(0))
            return builder.shuffle_vector(one, one, lanes)

        weights, steps, shifts, bounds = (everywhere(value) for value in args[3:7])
        words = builder.zext(_panel_products(context, builder, base, entries, width), lanes.type)
        products = builder.fsub(builder.sitofp(words, floats), shifts)
        factors = PANEL_ROWS * width
        add = load_unaligned(builder, base, I64(factors), floats)
        rescale = load_unaligned(builder, base, I64(factors + 4 * PANEL_ROWS), floats)
        estimates = builder.fadd(builder.fmul(weights, add), builder.fmul(builder.fmul(rescale, steps), products))
        target = builder.bitcast(data_pointer(context, builder, sig.args[7], args[7]), floats.as_pointer())
        builder.store(estimates, target, align=4)
        return builder.bitcast(builder.fcmp_ordered("<=", estimates, bounds), I32)

    return signature, codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """The number of the lowest bit that is set in a uint32, int64; 32 where there is none."""

    def codegen(context, builder, sig, args):
        found = _call_with_flag(builder, "llvm.cttz.i32", args[0])
        return builder.zext(found, I64)

    return types.int64(types.uint32), codegen


def _call_with_flag(builder, name, value):
    function_type = ir.FunctionType(value.type, [value.type, ir.IntType(1)])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, [value, ir.IntType(1)(0)])
