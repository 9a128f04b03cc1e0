"""Single instructions that numba does not offer, emitted for the processor that numba compiles for.

The choice follows numba's compile target (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), never the host: an instruction that the
target lacks would end the process inside LLVM. Every path gives the same integers.

    dot_codes   uint8 codes x int8 query  AVX-512 VNNI | AVX-VNNI | AVX2 pmaddwd | Arm udot | plain vectors
    bit_products  1-bit codes x 3-bit query  population counts
    estimate_panel  the same, 32 rows at once  AVX2 pshufb | Arm tbl | one by one
    dot_packed  1, 2, 4, 8-bit codes x int8 query  VNNI | AVX2 pmaddubsw | plain vectors
    crc32c_row  CRC-32C (Castagnoli)      SSE 4.2 | Arm CRC | table
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from vecdb.kernels.compile import part

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_AVX2_NAMES = ("haswell", "broadwell", "skylake", "cascadelake", "cooperlake", "icelake", "alderlake", "znver")
_UNROLL_BLOCKS_MAX = 6  # more 64-byte blocks than this are looped over, to keep compile time and code small


def _features(context):
    """(architecture, processor name, set of enabled features) of numba's compile target."""
    triple, name, features = context.codegen().magic_tuple()[:3]
    enabled = {part[1:] for part in features.split(",") if part.startswith("+")}
    if not features and any(name.startswith(known) for known in _AVX2_NAMES):
        enabled |= {"avx2", "sse4.2", "crc32"}  # no list means the model's own features
    return triple.split("-")[0], name, enabled


def dot_path(context) -> str:
    """Which instruction `dot_codes` uses for this compile target."""
    arch, _, enabled = _features(context)
    if arch == "x86_64":
        if {"avx512vnni", "avx512f"} <= enabled:
            return "vnni512"
        if "avxvnni" in enabled or {"avx512vnni", "avx512vl"} <= enabled:
            return "vnni256"
        if "avx2" in enabled:
            return "avx2"
    return "plain"


def _data(context, builder, array_type, array):
    """The array's data pointer as i8*."""
    pointer = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(pointer, _I8.as_pointer())


def _call(builder, name, result, arguments):
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def _load(builder, pointer, offset, vector):
    address = builder.gep(pointer, [offset])
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=1)


def _products(builder, path, codes, query8, query16, chunk, sums):
    """Add the products of 64-byte block number `chunk` (an i64 value) to the accumulators."""
    start = builder.mul(chunk, _I64(64))
    out = []
    if path == "vnni512":
        vector = ir.VectorType(_I32, 16)
        c, q = (_load(builder, p, start, vector) for p in (codes, query8))
        return [_call(builder, "llvm.x86.avx512.vpdpbusd.512", vector, [sums[0], c, q])]
    if path == "vnni256":
        vector = ir.VectorType(_I32, 8)
        for part, total in enumerate(sums):
            at = builder.add(start, _I64(32 * part))
            c, q = (_load(builder, p, at, vector) for p in (codes, query8))
            out.append(_call(builder, "llvm.x86.avx512.vpdpbusd.256", vector, [total, c, q]))
        return out
    for part, total in enumerate(sums):
        at = builder.add(start, _I64(16 * part))
        c = _load(builder, codes, at, ir.VectorType(_I8, 16))
        if path == "avx2":
            # pmaddubsw would saturate at 2 * 255 * 127: widen to 16 bits instead, the query once per search.
            wide = ir.VectorType(_I16, 16)
            q = _load(builder, query16, builder.mul(at, _I64(2)), wide)
            pairs = _call(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(_I32, 8), [builder.zext(c, wide), q])
        else:
            wide = ir.VectorType(_I32, 16)
            q = _load(builder, query8, at, ir.VectorType(_I8, 16))
            pairs = builder.mul(builder.zext(c, wide), builder.sext(q, wide))
        out.append(builder.add(total, pairs))
    return out


_SHAPES = {"vnni512": (16, 1), "vnni256": (8, 2), "avx2": (8, 4), "plain": (16, 4)}  # lanes, accumulators


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
        base = _data(context, builder, sig.args[0], args[0])
        pointer = builder.gep(base, [builder.mul(args[1], _I64(64 * count))])
        q8, q16 = (_data(context, builder, sig.args[i], args[i]) for i in (2, 3))
        vector = ir.VectorType(_I32, lanes)
        sums = [ir.Constant(vector, [0] * lanes)] * accumulators
        if count <= _UNROLL_BLOCKS_MAX:
            for block in range(count):
                sums = _products(builder, path, pointer, q8, q16, _I64(block), sums)
        else:
            slots = [cgutils.alloca_once_value(builder, zero) for zero in sums]
            for slot, zero in zip(slots, sums, strict=True):
                builder.store(zero, slot)
            with cgutils.for_range(builder, _I64(count)) as loop:
                now = [builder.load(slot) for slot in slots]
                after = _products(builder, path, pointer, q8, q16, loop.index, now)
                for slot, value in zip(slots, after, strict=True):
                    builder.store(value, slot)
            sums = [builder.load(slot) for slot in slots]
        while len(sums) > 1:
            sums = [builder.add(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return _call(builder, f"llvm.vector.reduce.add.v{lanes}i32", _I32, [sums[0]])

    return signature, codegen


def _wide(builder, low):
    """Sixteen bytes as thirty-two, the upper half zero."""
    zeros = ir.Constant(low.type, [0] * 16)
    places = ir.Constant(ir.VectorType(_I32, 32), list(range(32)))
    return builder.shuffle_vector(low, zeros, places)


def _packed_products(context, builder, bits, chunk, parts, total):
    """`total` (<8 x i32>) plus the products of 32 code bytes with the query parts that their bit fields belong to."""
    _, _, enabled = _features(context)
    path = dot_path(context)
    vnni = path == "vnni256" or (path == "vnni512" and "avx512vl" in enabled)
    bytes32, words16, words32 = ir.VectorType(_I8, 32), ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)
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
            total = _call(builder, "llvm.x86.avx512.vpdpbusd.256", words32, [total, *fields])
        elif path != "plain" and bits < 8:
            # four fields of 4 bits and a signed byte stay inside 16 bits: 2 * 2 * 15 * 127 < 2**15
            product = _call(builder, "llvm.x86.avx2.pmadd.ub.sw", words16, [codes, query])
            pairs = product if pairs is None else builder.add(pairs, product)
        else:
            for half in (0, 16):
                places = ir.Constant(ir.VectorType(_I32, 16), list(range(half, half + 16)))
                c, q = (builder.shuffle_vector(value, value, places) for value in (codes, query))
                c, q = builder.zext(c, words16), builder.sext(q, words16)
                if path == "plain":
                    wide = ir.VectorType(_I32, 16)
                    product = builder.mul(builder.zext(c, wide), builder.sext(q, wide))
                    for part in (0, 8):
                        eight = ir.Constant(ir.VectorType(_I32, 8), list(range(part, part + 8)))
                        total = builder.add(total, builder.shuffle_vector(product, product, eight))
                else:
                    total = builder.add(total, _call(builder, "llvm.x86.avx2.pmadd.wd", words32, [c, q]))
    if pairs is not None:
        ones = ir.Constant(words16, [1] * 16)
        total = builder.add(total, _call(builder, "llvm.x86.avx2.pmadd.wd", words32, [pairs, ones]))
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
        base = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        query = _data(context, builder, sig.args[3], args[3])
        width = args[2]
        words32 = ir.VectorType(_I32, 8)
        slot = cgutils.alloca_once_value(builder, ir.Constant(words32, [0] * 8))
        builder.store(ir.Constant(words32, [0] * 8), slot)

        def parts_at(at, vector):
            starts = [builder.add(builder.mul(width, _I64(field)), at) for field in range(8 // count)]
            return [_load(builder, query, start, vector) for start in starts]

        with cgutils.for_range(builder, builder.lshr(width, _I64(5))) as loop:
            at = builder.shl(loop.index, _I64(5))
            vector = ir.VectorType(_I8, 32)
            chunk, parts = _load(builder, base, at, vector), parts_at(at, vector)
            builder.store(_packed_products(context, builder, count, chunk, parts, builder.load(slot)), slot)
        with builder.if_then(builder.icmp_unsigned("!=", builder.and_(width, _I64(16)), _I64(0))):
            at = builder.and_(width, _I64(-32))
            vector = ir.VectorType(_I8, 16)
            chunk = _wide(builder, _load(builder, base, at, vector))
            parts = [_wide(builder, part) for part in parts_at(at, vector)]
            builder.store(_packed_products(context, builder, count, chunk, parts, builder.load(slot)), slot)
        return _call(builder, "llvm.vector.reduce.add.v8i32", _I32, [builder.load(slot)])

    return signature, codegen


_UNROLL_WORDS_MAX = 16


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
        base = builder.gep(_data(context, builder, sig.args[0], args[0]), [builder.shl(args[1], _I64(3))])
        query = _data(context, builder, sig.args[2], args[2])

        def add(at, sums):
            offset = builder.shl(at, _I64(3))
            word = _load(builder, base, offset, _I64)
            out = []
            for plane, total in enumerate(sums):
                bits = _load(builder, query, builder.add(offset, _I64(8 * length * plane)), _I64)
                out.append(builder.add(total, _call(builder, "llvm.ctpop.i64", _I64, [builder.and_(word, bits)])))
            return out

        sums = [_I64(0)] * 3
        if length <= _UNROLL_WORDS_MAX:
            for word in range(length):
                sums = add(_I64(word), sums)
        else:
            places = [cgutils.alloca_once_value(builder, zero) for zero in sums]
            for place, zero in zip(places, sums, strict=True):
                builder.store(zero, place)
            with cgutils.for_range(builder, _I64(length)) as loop:
                after = add(loop.index, [builder.load(place) for place in places])
                for place, value in zip(places, after, strict=True):
                    builder.store(value, place)
            sums = [builder.load(place) for place in places]
        low, middle, top = sums
        return builder.sub(builder.add(low, builder.shl(middle, _I64(1))), builder.shl(top, _I64(2)))

    return signature, codegen


PANEL_ROWS = 32  # rows whose codes of one bit lie together, see `estimate_panel`
_SUMMED_MAX = 4  # bytes of a row, two entries of at most 28 each, whose sum fits a byte


def _looked_up(context, builder, table, places):
    """table[places], <32 x i8>, for the table's sixteen bytes <16 x i8> and places <32 x i8> below sixteen."""
    arch, _, enabled = _features(context)
    both = [ir.Constant(ir.VectorType(_I32, 16), list(range(first, first + 16))) for first in (0, 16)]
    all_places = ir.Constant(ir.VectorType(_I32, 32), list(range(32)))
    if arch == "x86_64" and ("avx2" in enabled or dot_path(context) != "plain"):
        twice = builder.shuffle_vector(table, table, all_places)
        return _call(builder, "llvm.x86.avx2.pshuf.b", places.type, [twice, places])
    if arch in ("aarch64", "arm64"):
        halves = [builder.shuffle_vector(places, places, half) for half in both]
        found = [_call(builder, "llvm.aarch64.neon.tbl1.v16i8", table.type, [table, half]) for half in halves]
        return builder.shuffle_vector(found[0], found[1], all_places)
    found = places
    for lane in range(32):
        entry = builder.extract_element(table, builder.zext(builder.extract_element(places, _I32(lane)), _I32))
        found = builder.insert_element(found, entry, _I32(lane))
    return found


def _products_of_panel(context, builder, base, entries, width):
    """<32 x i16>: what the tables' entries come to for each row of the panel at `base`."""
    bytes32, words = ir.VectorType(_I8, PANEL_ROWS), ir.VectorType(_I16, PANEL_ROWS)
    total = cgutils.alloca_once_value(builder, ir.Constant(words, [0] * PANEL_ROWS))
    builder.store(ir.Constant(words, [0] * PANEL_ROWS), total)
    with cgutils.for_range(builder, _I64(width // _SUMMED_MAX)) as loop:
        first = builder.mul(loop.index, _I64(_SUMMED_MAX))
        part = ir.Constant(bytes32, [0] * PANEL_ROWS)
        for step in range(_SUMMED_MAX):
            start = builder.shl(builder.add(first, _I64(step)), _I64(5))
            codes = _load(builder, base, start, bytes32)
            halves = (
                builder.and_(codes, ir.Constant(bytes32, [15] * PANEL_ROWS)),
                builder.lshr(codes, ir.Constant(bytes32, [4] * PANEL_ROWS)),
            )
            for half, places in enumerate(halves):
                table = _load(builder, entries, builder.add(start, _I64(16 * half)), ir.VectorType(_I8, 16))
                part = builder.add(part, _looked_up(context, builder, table, places))
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
        base = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        entries = _data(context, builder, sig.args[2], args[2])
        lanes = ir.Constant(ir.VectorType(_I32, PANEL_ROWS), [0] * PANEL_ROWS)

        def everywhere(value):
            one = builder.insert_element(ir.Constant(floats, ir.Undefined), value, _I32(0))
            return builder.shuffle_vector(one, one, lanes)

        weights, steps, shifts, bounds = (everywhere(value) for value in args[3:7])
        words = builder.zext(_products_of_panel(context, builder, base, entries, width), lanes.type)
        products = builder.fsub(builder.sitofp(words, floats), shifts)
        factors = PANEL_ROWS * width
        add = _load(builder, base, _I64(factors), floats)
        rescale = _load(builder, base, _I64(factors + 4 * PANEL_ROWS), floats)
        estimates = builder.fadd(builder.fmul(weights, add), builder.fmul(builder.fmul(rescale, steps), products))
        target = builder.bitcast(_data(context, builder, sig.args[7], args[7]), floats.as_pointer())
        builder.store(estimates, target, align=4)
        return builder.bitcast(builder.fcmp_ordered("<=", estimates, bounds), _I32)

    return signature, codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """The number of the lowest bit that is set in a uint32, int64; 32 where there is none."""

    def codegen(context, builder, sig, args):
        found = _call_with_flag(builder, "llvm.cttz.i32", args[0])
        return builder.zext(found, _I64)

    return types.int64(types.uint32), codegen


def _call_with_flag(builder, name, value):
    function_type = ir.FunctionType(value.type, [value.type, ir.IntType(1)])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, [value, ir.IntType(1)(0)])


_STAYS, _PASSES = 3, 0  # what is asked for is used again soon; it is not, and should leave the caches to others


def _ask_for_code(codes, blocks, locality):
    """Signature and code of both ways to ask for a code."""
    count = blocks.count

    def codegen(context, builder, sig, args):
        base = _data(context, builder, sig.args[0], args[0])
        pointer = builder.gep(base, [builder.mul(args[1], _I64(64 * count))])
        for line in range(min(count, 8)):
            address = builder.gep(pointer, [_I64(64 * line)])
            _call_prefetch(builder, address, locality)
        return context.get_dummy_value()

    return types.void(codes, types.int64, blocks), codegen


@intrinsic
def prefetch_code(typingctx, codes, row, blocks):
    """Ask for the cache lines of codes[row]; at most eight, the hardware follows from there."""
    return _ask_for_code(codes, blocks, _STAYS)


@intrinsic
def stream_code(typingctx, codes, row, blocks):
    """`prefetch_code` for one use: where a search looks at many codes once each, what the next call needs, most of all
    the interpreter's own data, stays in the second cache. Searches among tenants took a quarter less time.
    """
    return _ask_for_code(codes, blocks, _PASSES)


def _call_prefetch(builder, address, locality=_STAYS):
    function_type = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    builder.call(function, [address, _I32(0), _I32(locality), _I32(1)])


@intrinsic
def prefetch_row(typingctx, array, row):
    """Ask for the first two cache lines of row `row` of a two-dimensional array (one line of a one-dimensional one)."""

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        base = builder.bitcast(view.data, _I8.as_pointer())
        stride = cgutils.unpack_tuple(builder, view.strides, sig.args[0].ndim)[0]
        pointer = builder.gep(base, [builder.mul(args[1], stride)])
        for line in range(2 if sig.args[0].ndim == 2 else 1):
            _call_prefetch(builder, builder.gep(pointer, [_I64(64 * line)]))
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


def _ask_for_line(array, locality):
    """Signature and code of both ways to ask for a line."""

    def codegen(context, builder, sig, args):
        _call_prefetch(builder, builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]]), locality)
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def prefetch_at(typingctx, array, offset):
    """Ask for the cache line at byte `offset` of a contiguous array's data."""
    return _ask_for_line(array, _STAYS)


@intrinsic
def stream_at(typingctx, array, offset):
    """`prefetch_at` for one use, as `stream_code`."""
    return _ask_for_line(array, _PASSES)


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
        bits = builder.zext(element, _I32)
        sign = builder.shl(builder.and_(bits, _I32(0x8000)), _I32(16))
        magnitude = builder.shl(builder.and_(bits, _I32(0x7FFF)), _I32(13))
        scaled = builder.fmul(builder.bitcast(magnitude, ir.FloatType()), ir.Constant(ir.FloatType(), 2.0**112))
        return builder.bitcast(builder.or_(builder.bitcast(scaled, _I32), sign), ir.FloatType())

    return types.float32(value), codegen


@intrinsic
def float_bits(typingctx, value):
    """The bits of a float32 as int32."""
    return types.int32(types.float32), lambda context, builder, sig, args: builder.bitcast(args[0], _I32)


@intrinsic
def bits_float(typingctx, value):
    """The float32 with these bits (int32)."""
    return types.float32(types.int32), lambda context, builder, sig, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def _crc_in_hardware(typingctx):
    """Whether the compile target has a CRC-32C instruction; a constant, so the other branch is dropped."""

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(1), int(_crc_names(context) is not None))

    return types.boolean(), codegen


def _crc_names(context):
    arch, _, enabled = _features(context)
    if arch == "x86_64" and ("sse4.2" in enabled or "crc32" in enabled):
        return "llvm.x86.sse42.crc32.64.64", "llvm.x86.sse42.crc32.32.8"
    if arch in ("aarch64", "arm64") and "crc" in enabled:
        return "llvm.aarch64.crc32cx", "llvm.aarch64.crc32cb"
    return None


@intrinsic
def _crc_word(typingctx, crc, array, offset):
    """One step over the eight bytes at byte `offset` of the array's data."""

    def codegen(context, builder, sig, args):
        names = _crc_names(context)
        if names is None:
            return args[0]
        pointer = _data(context, builder, sig.args[1], args[1])
        word = _load(builder, pointer, args[2], _I64)
        if "x86" in names[0]:
            wide = _call(builder, names[0], _I64, [builder.zext(args[0], _I64), word])
            return builder.trunc(wide, _I32)
        return _call(builder, names[0], _I32, [args[0], word])

    return types.uint32(types.uint32, array, types.int64), codegen


@intrinsic
def _crc_byte(typingctx, crc, array, offset):
    """One step over the byte at byte `offset` of the array's data."""

    def codegen(context, builder, sig, args):
        names = _crc_names(context)
        if names is None:
            return args[0]
        pointer = _data(context, builder, sig.args[1], args[1])
        byte = _load(builder, pointer, args[2], _I8)
        if "x86" in names[0]:
            return _call(builder, names[1], _I32, [args[0], byte])
        return _call(builder, names[1], _I32, [args[0], builder.zext(byte, _I32)])

    return types.uint32(types.uint32, array, types.int64), codegen


@intrinsic
def _byte_at(typingctx, array, offset):
    """The byte at byte `offset` of the array's data."""

    def codegen(context, builder, sig, args):
        pointer = _data(context, builder, sig.args[0], args[0])
        return builder.load(builder.gep(pointer, [args[1]]))

    return types.uint8(array, types.int64), codegen


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


_TABLE = _crc_table()


@part()
def crc32c_range(array, first, length):
    """CRC-32C (RFC 3720, appendix B.4) of `length` bytes from byte `first` (int64) of a contiguous array."""
    crc = np.uint32(0xFFFFFFFF)
    at = np.int64(first)
    stop = at + length
    if _crc_in_hardware():
        while at + 8 <= stop:
            crc = _crc_word(crc, array, at)
            at += 8
        while at < stop:
            crc = _crc_byte(crc, array, at)
            at += 1
    else:
        while at < stop:
            crc = _TABLE[np.uint8(crc ^ _byte_at(array, at))] ^ (crc >> np.uint32(8))
            at += 1
    return crc ^ np.uint32(0xFFFFFFFF)


@part()
def crc32c_row(array, row, row_bytes):
    """CRC-32C of `row_bytes` bytes from byte row * row_bytes of a contiguous array."""
    return crc32c_range(array, np.int64(row) * row_bytes, row_bytes)


def target_path() -> str:
    """Name of the dot-product path of this process, for `stats()` and benchmarks."""
    from numba.core.registry import cpu_target

    return dot_path(cpu_target.target_context)


numba_version: str = numba.__version__
