"""Words that several threads change at once.

Words are int64 in an array of one dimension. `replace` is sequentially consistent, `store` releases,
`load` is relaxed.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vecdb.kernels.primitives.codegen import I32, I64, call_intrinsic, data_pointer, target_features


def _word(context, builder, array_type, array, at):
    base = data_pointer(context, builder, array_type, array)
    return builder.bitcast(builder.gep(base, [builder.mul(at, I64(8))]), I64.as_pointer())


@intrinsic
def load(typingctx, words, at):
    """The word at `at` (int64) as it is now."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_word(context, builder, sig.args[0], *args), "monotonic", 8)

    return types.int64(words, types.int64), codegen


@intrinsic
def store(typingctx, words, at, value):
    """Put `value` (int64) into the word."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _word(context, builder, sig.args[0], args[0], args[1]), "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), codegen


@intrinsic
def replace(typingctx, words, at, expected, value):
    """Put `value` into the word if it is `expected` (both int64). Returns whether it was."""

    def codegen(context, builder, sig, args):
        word = _word(context, builder, sig.args[0], args[0], args[1])
        done = builder.cmpxchg(word, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(done, 1)

    return types.boolean(words, types.int64, types.int64, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Spend a few tens of nanoseconds as a loop should that waits for another core."""

    def codegen(context, builder, sig, args):
        architecture = target_features(context)[0]
        if architecture == "x86_64":
            call_intrinsic(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif architecture == "aarch64":
            call_intrinsic(builder, "llvm.aarch64.hint", ir.VoidType(), [I32(1)])
        return context.get_dummy_value()

    return types.void(), codegen
