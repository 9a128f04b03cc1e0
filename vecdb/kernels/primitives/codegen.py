"""What the single-instruction modules share: the compile target's features, pointers, loads, LLVM's own functions, and
sums of a few vectors' lanes.

The choice of an instruction follows numba's compile target (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES), never the host: an
instruction that the target lacks would end the process inside LLVM. Every path gives the same integers.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_AVX2_NAMES = ("haswell", "broadwell", "skylake", "cascadelake", "cooperlake", "icelake", "alderlake", "znver")


def target_features(context):
    """(architecture, processor name, set of enabled features) of numba's compile target."""
    triple, name, features = context.codegen().magic_tuple()[:3]
    enabled = {part[1:] for part in features.split(",") if part.startswith("+")}
    if not features and any(name.startswith(known) for known in _AVX2_NAMES):
        enabled |= {"avx2", "sse4.2", "crc32"}  # no list means the model's own features
    return triple.split("-")[0], name, enabled


def data_pointer(context, builder, array_type, array):
    """The array's data pointer as i8*."""
    pointer = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(pointer, I8.as_pointer())


def call_intrinsic(builder, name, result, arguments):
    function_type = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def load_unaligned(builder, pointer, offset, vector):
    address = builder.gep(pointer, [offset])
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=1)


def row_pointers(context, builder, base, rows_type, rows, at, row_bytes, count):
    """i8* of each of `count` rows whose numbers are rows[at : at + count], int32; base : i8* of row 0."""
    numbers = builder.gep(data_pointer(context, builder, rows_type, rows), [builder.shl(at, I64(2))])
    found = [builder.load(builder.bitcast(builder.gep(numbers, [I64(4 * i)]), I32.as_pointer())) for i in range(count)]
    return [builder.gep(base, [builder.mul(builder.sext(row, I64), row_bytes)]) for row in found]


def everywhere(builder, value, lanes):
    """A vector of so many lanes that all hold the value."""
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


# Which lanes of two vectors a, b of sixteen, in each quarter of them: no lane leaves its quarter, which is one
# instruction on every processor.
APART = (0, 16, 1, 17), (2, 18, 3, 19)  # added: a0 + a2, b0 + b2, a1 + a3, b1 + b3
TOGETHER = (0, 1, 16, 17), (2, 3, 18, 19)  # added, of two such: one lane for each of four vectors


def sum_of_shuffles(builder, a, b, halves):
    """The sum of two choices of lanes of two vectors of sixteen. halves : APART or TOGETHER."""
    places = [
        ir.Constant(ir.VectorType(I32, 16), [quarter + one for quarter in range(0, 16, 4) for one in half])
        for half in halves
    ]
    return add(builder, *(builder.shuffle_vector(a, b, one) for one in places))


def halved(builder, vector, lanes):
    """Add the halves of a vector until so many lanes are left."""
    count = vector.type.count
    while count > lanes:
        count //= 2
        low, high = (ir.Constant(ir.VectorType(I32, count), list(range(at, at + count))) for at in (0, count))
        vector = add(builder, *(builder.shuffle_vector(vector, vector, places) for places in (low, high)))
    return vector


def add(builder, a, b):
    """The sum of two vectors of floats or of integers."""
    return builder.fadd(a, b) if isinstance(a.type.element, ir.FloatType) else builder.add(a, b)


def bits_of(builder, truths):
    """Truths, <n x i1>, as the lowest bits of an i64."""
    return builder.zext(builder.bitcast(truths, ir.IntType(truths.type.count)), I64)
