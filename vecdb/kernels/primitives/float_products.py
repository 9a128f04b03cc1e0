"""Distances of float32 codes to a float32 query, sixteen elements at a time.

    square_distance  sum (code - query)^2        in difference form: what two near vectors share is not subtracted
    float_dot        sum code * query               from two large sums
    row_products     products of ROWS rows with COLUMNS columns of a matrix
    rows_by_squares, rows_by_cosines, rows_by_products   which of ROWS stored rows of any length may be near a query,
                     by sums in any order of addition: a query's block is loaded once for all

In the first two every target adds in the same order and none fuses a product with a sum, so that all give the same
bits: sums of every fourth block of sixteen elements, then their halves. Both are symmetric in code and query.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.primitives.codegen import (
    APART,
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
)
from vecdb.kernels.primitives.prefetch import prefetch_pointer

_LANES = 16  # float32 in a block of 64 bytes
_UNROLL_BLOCKS_MAX = 8  # more blocks than this are looped over, _SUMS at a time
_SUMS = 4
_FUSED = ("contract",)
ENDS = 2 * _LANES  # float32 of the end of a query, see `rows_by_squares`
ROWS, COLUMNS = 4, 64  # rows looked at together, and columns of `row_products`: sums that stay in registers
SQUARE_MIN, SQUARE_MAX = 1e-30, 1e37  # of a row or query: outside of them float32 says little of its length
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)


def _squared(builder, code, query):
    difference = builder.fsub(code, query)
    return builder.fmul(difference, difference)


def _product(builder, code, query):
    return builder.fmul(code, query)


def _sum_of_lanes(builder, vector):
    """The sum of a vector's elements: halves are added until one is left."""
    lanes = _LANES
    while lanes > 1:
        lanes //= 2
        low, high = (ir.Constant(ir.VectorType(I32, lanes), list(range(at, at + lanes))) for at in (0, lanes))
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, places) for places in (low, high)))
    return builder.extract_element(vector, I32(0))


def _sum_of(term, codes, query8, blocks):
    """Signature and code of the sum of `term` over all elements of a code."""
    count = blocks.count
    signature = types.float32(codes, types.int64, query8, blocks)

    def codegen(context, builder, sig, args):
        base = data_pointer(context, builder, sig.args[0], args[0])
        code = builder.gep(base, [builder.mul(args[1], I64(64 * count))])
        query = data_pointer(context, builder, sig.args[2], args[2])

        def terms_at(block):
            start = builder.mul(block, I64(64))
            return term(builder, *(load_unaligned(builder, pointer, start, _VECTOR) for pointer in (code, query)))

        if count <= _UNROLL_BLOCKS_MAX:
            sums = [terms_at(I64(block)) for block in range(min(count, _SUMS))]
            for block in range(_SUMS, count):
                sums[block % _SUMS] = builder.fadd(sums[block % _SUMS], terms_at(I64(block)))
        else:
            assert count % _SUMS == 0
            zero = ir.Constant(_VECTOR, [0.0] * _LANES)
            slots = [cgutils.alloca_once_value(builder, zero) for _ in range(_SUMS)]
            for slot in slots:
                builder.store(zero, slot)
            with cgutils.for_range(builder, I64(count // _SUMS)) as loop:
                first = builder.mul(loop.index, I64(_SUMS))
                for i, slot in enumerate(slots):
                    total = builder.fadd(builder.load(slot), terms_at(builder.add(first, I64(i))))
                    builder.store(total, slot)
            sums = [builder.load(slot) for slot in slots]
        while len(sums) > 1:
            sums = [builder.fadd(a, b) for a, b in zip(sums[::2], sums[1::2], strict=False)] + sums[len(sums) & -2 :]
        return _sum_of_lanes(builder, sums[0])

    return signature, codegen


@intrinsic
def square_distance(typingctx, codes, row, query8, blocks):
    """sum over i of (code[i] - query[i])^2, float32.

    codes : uint8[n, 64 * len(blocks)], C-contiguous, each row the bytes of float32[16 * len(blocks)].   row : int64.
    query8 : the bytes of the query, int8[64 * len(blocks)].   blocks : a tuple whose length, a compile-time constant,
    is the number of 64-byte blocks of a code; a multiple of four where it is above eight.
    """
    return _sum_of(_squared, codes, query8, blocks)


@intrinsic
def float_dot(typingctx, codes, row, query8, blocks):
    """sum over i of code[i] * query[i], float32; the arguments are those of `square_distance`."""
    return _sum_of(_product, codes, query8, blocks)


@intrinsic
def row_products(typingctx, rows, first, columns, out):
    """out[i, k] = sum over j of rows[i, j] * columns[j, k], for ROWS rows from `first` on and each k below COLUMNS.

    rows : float32[n, w].   first : int64.   columns : float32[w, COLUMNS].   out : float32[n, COLUMNS]. All are
    C-contiguous. A product may be fused with its sum.
    """
    signature = types.void(rows, types.int64, columns, out)
    vectors = COLUMNS // _LANES

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        row_bytes = builder.mul(cgutils.unpack_tuple(builder, view.shape, 2)[1], I64(4))
        base, column, target = (data_pointer(context, builder, sig.args[i], args[i]) for i in (0, 2, 3))
        numbers = [builder.add(args[1], I64(i)) for i in range(ROWS)]
        own = [builder.gep(base, [builder.mul(number, row_bytes)]) for number in numbers]
        zero = ir.Constant(_VECTOR, [0.0] * _LANES)
        slots = [[cgutils.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in numbers]
        for slot in (slot for line in slots for slot in line):
            builder.store(zero, slot)
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, view.shape, 2)[1]) as loop:
            start = builder.mul(loop.index, I64(4 * COLUMNS))
            at = [builder.add(start, I64(64 * i)) for i in range(vectors)]
            factors = [load_unaligned(builder, column, one, _VECTOR) for one in at]
            for pointer, line in zip(own, slots, strict=True):
                element = builder.gep(pointer, [builder.mul(loop.index, I64(4))])
                number = builder.load(builder.bitcast(element, ir.FloatType().as_pointer()))
                single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, I32(0))
                places = ir.Constant(ir.VectorType(I32, _LANES), [0] * _LANES)
                everywhere = builder.shuffle_vector(single, single, places)
                for factor, slot in zip(factors, line, strict=True):
                    product = builder.fmul(everywhere, factor, flags=("contract",))
                    builder.store(builder.fadd(builder.load(slot), product, flags=("contract",)), slot)
        for number, line in zip(numbers, slots, strict=True):
            for i, slot in enumerate(line):
                place = builder.add(builder.mul(number, I64(4 * COLUMNS)), I64(64 * i))
                pointer = builder.bitcast(builder.gep(target, [place]), _VECTOR.as_pointer())
                builder.store(builder.load(slot), pointer, align=1)
        return context.get_dummy_value()

    return signature, codegen


def _over_rows(sums, add, vectors, rows, query, ends, decide):
    """Signature and code of a question about ROWS rows, whose answer is a bit a row: so many sums over the elements of
    each row and the query, from which `decide` tells.

    add(builder, slots, x, y) : what a block of both adds to the slots of a row's sums.
    decide(builder, totals, args) : of totals <ROWS x float>, one for each sum, and what follows `ends`: <ROWS x i1>.
    """
    signature = types.int64(vectors, rows, types.int64, query, ends, types.float32, types.float32, types.int64)

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        dim = cgutils.unpack_tuple(builder, view.shape, 2)[1]
        base, other, end = (data_pointer(context, builder, sig.args[i], args[i]) for i in (0, 3, 4))
        own = row_pointers(context, builder, base, sig.args[1], args[1], args[2], builder.mul(dim, I64(4)), ROWS)
        zero = ir.Constant(_VECTOR, [0.0] * _LANES)
        slots = [[cgutils.alloca_once_value(builder, zero) for _ in range(sums)] for _ in range(_SUMS)]
        rest, counts = (load_unaligned(builder, end, I64(64 * i), _VECTOR) for i in range(2))
        blocks, elements = builder.udiv(dim, I64(_LANES)), builder.urem(dim, I64(_LANES))
        groups = builder.udiv(blocks, I64(_SUMS))
        grouped = builder.mul(groups, I64(_SUMS))
        vectors_of_rows = [[] for _ in range(sums)]
        for pointer in own:

            def add_block(line, block, pointer=pointer):
                start = builder.mul(block, I64(64))
                add(builder, line, *(load_unaligned(builder, one, start, _VECTOR) for one in (pointer, other)))

            for slot in (slot for line in slots for slot in line):
                builder.store(zero, slot)
            with cgutils.for_range(builder, groups) as loop:
                first = builder.mul(loop.index, I64(_SUMS))
                for i, line in enumerate(slots):
                    place = builder.add(args[-1], builder.mul(builder.add(first, I64(i)), I64(64)))
                    prefetch_pointer(builder, builder.gep(pointer, [place]))
                    add_block(line, builder.add(first, I64(i)))
            with cgutils.for_range(builder, builder.sub(blocks, grouped)) as loop:
                add_block(slots[0], builder.add(grouped, loop.index))
            with builder.if_then(builder.icmp_unsigned("!=", elements, I64(0))):
                last = load_unaligned(builder, pointer, builder.mul(builder.sub(dim, I64(_LANES)), I64(4)), _VECTOR)
                add(builder, slots[1], builder.fmul(last, counts), rest)
            for i, kept in enumerate(vectors_of_rows):
                first, second, third, fourth = (builder.load(line[i]) for line in slots)
                kept.append(builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth)))
        totals = [_totals(builder, kept) for kept in vectors_of_rows]
        return bits_of(builder, decide(builder, totals, args[5:7]))

    return signature, codegen


def _totals(builder, vectors):
    """<ROWS x float>: the sum of the elements of each of ROWS vectors."""
    first, second, third, fourth = vectors
    pairs = [sum_of_shuffles(builder, *pair, APART) for pair in ((first, second), (third, fourth))]
    return halved(builder, sum_of_shuffles(builder, *pairs, TOGETHER), ROWS)


def _add_product(builder, slot, x, y):
    builder.store(builder.fadd(builder.load(slot), builder.fmul(x, y, flags=_FUSED), flags=_FUSED), slot)


def _add_product_and_square(builder, slots, x, y):
    _add_product(builder, slots[0], x, y)
    _add_product(builder, slots[1], x, x)


def _add_squared_difference(builder, slots, x, y):
    difference = builder.fsub(x, y)
    _add_product(builder, slots[0], difference, difference)


def _roots(builder, values):
    return call_intrinsic(builder, f"llvm.sqrt.v{ROWS}f32", values.type, [values])


@intrinsic
def rows_by_squares(typingctx, vectors, rows, at, query, ends, most, unused, ahead):
    """Of the rows rows[at : at + ROWS], a bit each: those whose sum of (x - q)^2 is not above `most`. The sum is off by
    at most (dim + 3) 2^-24 of itself: a product may be fused with its sum, and sums are in any order.

    vectors : float32[n, dim], C-contiguous, dim >= 16.   rows : int32[>= at + ROWS].   at : int64.   query :
    float32[dim].   most : float32.   Returns int64, the first row is the lowest bit.
    ends : float32[ENDS]: the query's last 16 elements and sixteen ones, with zeros in both for those elements that
    whole blocks of 16 from the front hold.
    ahead : int64, bytes from what is read to what is asked for in advance, in rows of 64 elements and more.
    """

    def decide(builder, totals, bounds):
        return builder.fcmp_unordered("<=", totals[0], everywhere(builder, bounds[0], ROWS))

    return _over_rows(1, _add_squared_difference, vectors, rows, query, ends, decide)


@intrinsic
def rows_by_cosines(typingctx, vectors, rows, at, query, ends, share, unused, ahead):
    """The same: those whose sum of x * q is not below share * |x|, and those of whose length float32 says little. Both
    sums, of x * q and of x * x, are off by at most (dim + 1) 2^-24 of the sum of their terms' sizes.
    """

    def decide(builder, totals, bounds):
        product, square = totals
        least, most = (everywhere(builder, ir.Constant(ir.FloatType(), one), ROWS) for one in (SQUARE_MIN, SQUARE_MAX))
        length = builder.fmul(everywhere(builder, bounds[0], ROWS), _roots(builder, square))
        told = builder.and_(builder.fcmp_ordered(">=", square, least), builder.fcmp_ordered("<=", square, most))
        return builder.or_(builder.not_(told), builder.fcmp_unordered(">=", product, length))

    return _over_rows(2, _add_product_and_square, vectors, rows, query, ends, decide)


@intrinsic
def rows_by_products(typingctx, vectors, rows, at, query, ends, least, share, ahead):
    """The same: those whose sum of x * q is not below least - share * |x|."""

    def decide(builder, totals, bounds):
        product, square = totals
        least, share = (everywhere(builder, one, ROWS) for one in bounds)
        reached = builder.fadd(product, builder.fmul(share, _roots(builder, square)))
        return builder.fcmp_unordered(">=", reached, least)

    return _over_rows(2, _add_product_and_square, vectors, rows, query, ends, decide)
