"""Counts of bits, and products of 1-bit codes with a query of three bits, one code at a time or a panel of 32 at once.

differing_bits  of a code and a query, 64 at once
rows_by_bits    which of ROWS stored rows may be near a query, by counts of bits
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
    TOGETHER,
    bits_of,
    call_intrinsic,
    data_pointer,
    everywhere,
    halved,
    load_unaligned,
    row_pointers,
    sum_of_shuffles,
    target_features,
)
from vecdb.kernels.primitives.dot_products import dot_path
from vecdb.kernels.primitives.float_products import ROWS

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


class _CountsOfVectors:
    """Bits that eight words of a row and of the query differ in, or have in common, counted at once, for each of ROWS
    rows. together : "xor" and "and_", or the first alone.
    """

    words, part = ir.VectorType(I64, 8), ir.VectorType(I8, 64)

    def __init__(self, builder, own, query, together):
        self.builder, self.own, self.query, self.together = builder, own, query, together
        zero = ir.Constant(self.words, [0] * 8)
        self.slots = [[cgutils.alloca_once_value(builder, zero) for _ in own] for _ in together]
        for slot in (slot for line in self.slots for slot in line):
            builder.store(zero, slot)

    def add(self, start, load):
        """Bits of 64 bytes from `start`. load(pointer) : those of a row."""
        builder = self.builder
        block = load_unaligned(builder, self.query, start, self.words)
        for i, pointer in enumerate(self.own):
            stored = load(pointer)
            for how, line in zip(self.together, self.slots, strict=True):
                bits = getattr(builder, how)(stored, block)
                count = call_intrinsic(builder, "llvm.ctpop.v8i64", self.words, [bits])
                builder.store(builder.add(builder.load(line[i]), count), line[i])

    def count(self, row_bytes):
        builder = self.builder
        blocks, rest = builder.lshr(row_bytes, I64(6)), builder.and_(row_bytes, I64(63))
        with cgutils.for_range(builder, blocks) as loop:
            start = builder.shl(loop.index, I64(6))
            self.add(start, lambda pointer: load_unaligned(builder, pointer, start, self.words))
        with builder.if_then(builder.icmp_unsigned("!=", rest, I64(0))):
            start = builder.shl(blocks, I64(6))
            counts = builder.sub(builder.shl(I64(1), rest), I64(1))
            truths = builder.bitcast(counts, ir.VectorType(ir.IntType(1), 64))
            nothing = ir.Constant(self.part, [0] * 64)

            def load(pointer):
                address = builder.bitcast(builder.gep(pointer, [start]), self.part.as_pointer())
                found = call_intrinsic(
                    builder, "llvm.masked.load.v64i8.p0", self.part, [address, I32(1), truths, nothing]
                )
                return builder.bitcast(found, self.words)

            self.add(start, load)
        return [self._totals([builder.load(slot) for slot in line]) for line in self.slots]

    def _totals(self, counts):
        """<ROWS x i32>. A lane holds a count of less than 2^32: two vectors are one of halves."""
        builder, halves = self.builder, ir.VectorType(I32, 16)
        pairs = [
            builder.bitcast(builder.or_(low, builder.shl(high, ir.Constant(self.words, [32] * 8))), halves)
            for low, high in (counts[:2], counts[2:])
        ]
        return halved(builder, sum_of_shuffles(builder, *pairs, TOGETHER), ROWS)


def _counts_of_words(builder, own, query, together, row_bytes):
    """The same, one word after another, where no instruction counts vectors. row_bytes is at least 8."""
    slots = [[cgutils.alloca_once_value(builder, I64(0)) for _ in own] for _ in together]
    for slot in (slot for line in slots for slot in line):
        builder.store(I64(0), slot)

    def add(start, load):
        word = load_unaligned(builder, query, start, I64)
        for i, pointer in enumerate(own):
            stored = load(pointer)
            for how, line in zip(together, slots, strict=True):
                count = call_intrinsic(builder, "llvm.ctpop.i64", I64, [getattr(builder, how)(stored, word)])
                builder.store(builder.add(builder.load(line[i]), count), line[i])

    words, rest = builder.lshr(row_bytes, I64(3)), builder.and_(row_bytes, I64(7))
    with cgutils.for_range(builder, words) as loop:
        start = builder.shl(loop.index, I64(3))
        add(start, lambda pointer: load_unaligned(builder, pointer, start, I64))
    with builder.if_then(builder.icmp_unsigned("!=", rest, I64(0))):
        last, counted = builder.sub(row_bytes, I64(8)), builder.sub(I64(64), builder.shl(rest, I64(3)))
        add(
            builder.shl(words, I64(3)),
            lambda pointer: builder.lshr(load_unaligned(builder, pointer, last, I64), counted),
        )
    totals = []
    for line in slots:
        total = ir.Constant(ir.VectorType(I32, ROWS), ir.Undefined)
        for i, slot in enumerate(line):
            total = builder.insert_element(total, builder.trunc(builder.load(slot), I32), I32(i))
        totals.append(total)
    return totals


@intrinsic
def rows_by_bits(typingctx, vectors, rows, at, query, most, both):
    """Of the rows rows[at : at + ROWS], a bit each: those at most `most` away from the query. Returns int64, the first
    row is the lowest bit. Two vectors without a bit count among them.

    vectors : uint8[n, bytes], C-contiguous, bytes >= 8.   rows : int32[>= at + ROWS].   at : int64.   query : uint8,
    the query's bytes and zeros up to a multiple of 64.   most : float32, a distance.
    both : None: of hamming, bits that differ; True, a literal: of jaccard.
    """
    signature = types.int64(vectors, rows, types.int64, query, types.float32, both)
    together = ("xor",) if both is types.none else ("xor", "and_")

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        row_bytes = cgutils.unpack_tuple(builder, view.shape, 2)[1]
        base, other = (data_pointer(context, builder, sig.args[i], args[i]) for i in (0, 3))
        own = row_pointers(context, builder, base, sig.args[1], args[1], args[2], row_bytes, ROWS)
        if {"avx512vpopcntdq", "avx512bw"} <= target_features(context)[2]:
            totals = _CountsOfVectors(builder, own, other, together).count(row_bytes)
        else:
            totals = _counts_of_words(builder, own, other, together, row_bytes)
        floats, most = ir.VectorType(ir.FloatType(), ROWS), everywhere(builder, args[4], ROWS)
        distances = builder.sitofp(totals[0], floats)
        if len(totals) > 1:  # as `jaccard_of` rounds
            either = builder.sitofp(builder.add(*totals), floats)
            shared = builder.sitofp(totals[1], floats)
            distances = builder.fsub(ir.Constant(floats, [1.0] * ROWS), builder.fdiv(shared, either))
        return bits_of(builder, builder.fcmp_unordered("<=", distances, most))

    return signature, codegen


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
