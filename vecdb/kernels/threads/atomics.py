"""Words that several threads change at once, and waiting for them without the interpreter's lock.

Words are int64 in an array of one dimension; every operation is sequentially consistent but the plain load, which is
relaxed. `sleep_while` and `wake` are Linux's futex on the lower half of a word; elsewhere, and on processors whose call
numbers are not known here, they return at once, and callers must not rely on them (`CAN_SLEEP`).
"""

from __future__ import annotations

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.primitives.codegen import I8, I32, I64, call_intrinsic, data_pointer, target_features

_FUTEX = {"x86_64": 202, "aarch64": 98}  # the number of the system call
_WAIT, _WAKE, _ALL = 128, 129, 0x7FFFFFFF  # both private to the process
CAN_SLEEP = sys.platform == "linux" and sys.byteorder == "little" and platform.machine() in _FUTEX


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
def add(typingctx, words, at, value):
    """Add `value` (int64) to the word. Returns what it was."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _word(context, builder, sig.args[0], args[0], args[1]), args[2], "seq_cst")

    return types.int64(words, types.int64, types.int64), codegen


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


@intrinsic
def this_core(typingctx):
    """The number of the core that runs this, int64; -1 where the system does not say."""

    def codegen(context, builder, sig, args):
        if not CAN_SLEEP:
            return I64(-1)
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), "sched_getcpu")
        return builder.sext(builder.call(function, []), I64)

    return types.int64(), codegen


def _futex(context, builder, word, operation, value, timeout):
    number = _FUTEX.get(target_features(context)[0])
    if not CAN_SLEEP or number is None:
        return
    call = ir.FunctionType(I64, [I64], var_arg=True)
    function = cgutils.get_or_insert_function(builder.module, call, "syscall")
    builder.call(function, [I64(number), word, I64(operation), value, timeout, I64(0), I64(0)])


@intrinsic
def sleep_while(typingctx, words, at, value, timeout_at):
    """Sleep while the lower half of the word is that of `value` (int64), until `wake`, or for as long as the two words
    from `timeout_at` on say: seconds, nanoseconds. It may return early.
    """

    def codegen(context, builder, sig, args):
        array_type, array = sig.args[0], args[0]
        word, timeout = (_word(context, builder, array_type, array, at) for at in (args[1], args[3]))
        _futex(context, builder, word, _WAIT, args[2], builder.bitcast(timeout, I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64, types.int64), codegen


@intrinsic
def wake(typingctx, words, at):
    """Wake whoever sleeps at the word."""

    def codegen(context, builder, sig, args):
        word = _word(context, builder, sig.args[0], *args)
        _futex(context, builder, word, _WAKE, I64(_ALL), I64(0).inttoptr(I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(words, types.int64), codegen
