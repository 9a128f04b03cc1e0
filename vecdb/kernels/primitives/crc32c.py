"""CRC-32C (Castagnoli): SSE 4.2 | Arm CRC | table, by the compile target."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from vecdb.kernels.compile import part
from vecdb.kernels.primitives.codegen import I8, I32, I64, call_intrinsic, data_pointer, load_unaligned, target_features


@intrinsic
def _crc_in_hardware(typingctx):
    """Whether the compile target has a CRC-32C instruction; a constant, so the other branch is dropped."""

    def codegen(context, builder, sig, args):
        return ir.Constant(ir.IntType(1), int(_crc_names(context) is not None))

    return types.boolean(), codegen


def _crc_names(context):
    arch, _, enabled = target_features(context)
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
        pointer = data_pointer(context, builder, sig.args[1], args[1])
        word = load_unaligned(builder, pointer, args[2], I64)
        if "x86" in names[0]:
            wide = call_intrinsic(builder, names[0], I64, [builder.zext(args[0], I64), word])
            return builder.trunc(wide, I32)
        return call_intrinsic(builder, names[0], I32, [args[0], word])

    return types.uint32(types.uint32, array, types.int64), codegen


@intrinsic
def _crc_byte(typingctx, crc, array, offset):
    """One step over the byte at byte `offset` of the array's data."""

    def codegen(context, builder, sig, args):
        names = _crc_names(context)
        if names is None:
            return args[0]
        pointer = data_pointer(context, builder, sig.args[1], args[1])
        byte = load_unaligned(builder, pointer, args[2], I8)
        if "x86" in names[0]:
            return call_intrinsic(builder, names[1], I32, [args[0], byte])
        return call_intrinsic(builder, names[1], I32, [args[0], builder.zext(byte, I32)])

    return types.uint32(types.uint32, array, types.int64), codegen


@intrinsic
def _byte_at(typingctx, array, offset):
    """The byte at byte `offset` of the array's data."""

    def codegen(context, builder, sig, args):
        pointer = data_pointer(context, builder, sig.args[0], args[0])
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
