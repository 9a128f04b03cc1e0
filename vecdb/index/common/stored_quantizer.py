"""A quantizer in a sealed file: what of it stands in the header, what is a section, and back.

header   : scale, trained_rows, lossless, and where they were added later codes, codes_recall, measured_rows: without
           them codes are "sq8" and were not measured
sections : mean, and signs where codes are rotated
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common import sealed_file
from vecdb.index.common.quantizer import CODE_FORMATS, ROTATED, SQ8, ScalarQuantizer
from vecdb.kernels.codes import sq8


def header_of(quantiser: ScalarQuantizer) -> dict[str, Any]:
    """Its part of a header."""
    return {
        "scale": quantiser.scale, "trained_rows": quantiser.trained_rows, "lossless": quantiser.lossless,
        "codes": quantiser.code_format, "codes_recall": quantiser.recall, "measured_rows": quantiser.measured_rows,
    }  # fmt: skip


def sections_of(quantiser: ScalarQuantizer) -> dict[str, NDArray[Any]]:
    """Its sections."""
    return {"mean": quantiser.mean} | ({} if quantiser.signs is None else {"signs": quantiser.signs})


def put_far_behind(bias: NDArray[np.int32], far: NDArray[np.int32], flat: int) -> None:
    """Give rows beyond the codes the bias that they have: files of earlier versions hold that of their clipped codes.

    bias : int32[rows], or empty; changed.   far : rows.   flat : of `ScalarQuantizer.flat_below`.
    """
    if len(bias):
        bias[far[bias[far] >= flat]] = sq8.FAR_BIAS


def read(path: Path, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> ScalarQuantizer:
    """The quantizer in a file at `path`. Raises Corruption where its format is none that there is."""
    code_format = header.get("codes", SQ8)
    if code_format not in CODE_FORMATS:
        raise sealed_file.corrupt_file_error(path, "header, codes", " or ".join(CODE_FORMATS), code_format)
    return ScalarQuantizer(
        np.array(sections["mean"]),
        header["scale"],
        header["trained_rows"],
        header["lossless"],
        code_format,
        signs=np.array(sections["signs"]) if code_format in ROTATED else None,
        recall=header.get("codes_recall"),
        measured_rows=header.get("measured_rows", 0),
    )
