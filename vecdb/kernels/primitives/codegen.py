"""What the single-instruction modules share: the compile target's features, pointers, loads, LLVM's own functions.

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
