"""The directory of a list file, sealed: how rows become codes, the heads, and where each list's extent is
(sealed_file.py).

    magic    := "VDBSPAN\\x01"
    header   := {version, kind, metric, dtype, dim, bits, replicas, indexed_rows, sequence, lossless, scale,
                 trained_rows, add_unit, rescale_unit, error, file, uid, page_count, built_rows}
    sections : mean, center, signs, head_codes, group_codes, group_ends, lengths, pages, lives, heat, far

lives are the writer ids of a ListsView, heat its probe counts, far its outlier rows. The list file that `file` names is
written and synced first; whatever it holds that the directory does not point at is garbage.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.index.clustering.cluster_tree import Heads, bias_of
from vecdb.index.common import sealed_file
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.spann.entry_coder import EntryCoder
from vecdb.index.spann.posting_lists import ListsState, empty_view
from vecdb.storage.disk.list_file import ListFile

MAGIC = b"VDBSPAN\x01"
VERSION = 1
_TREE_SECTIONS = ("mean", "center", "signs", "head_codes", "group_codes", "group_ends")


def write(path: Path, state: ListsState, facts: dict[str, Any]) -> int:
    """Seal lists that all have extents. facts : what the header must say of the collection. Returns bytes."""
    view = state.view
    assert view is not None and view.file is not None and (view.extent_pages >= 0).all()
    tree_header, tree_arrays = tree_parts(view.coder, view.heads)
    header = {
        "version": VERSION,
        **facts,
        "sequence": state.removed,
        "built_rows": state.built_rows,
        "indexed_rows": view.indexed,
        **tree_header,
        "replicas": view.replicas,
        "file": view.file.path.name,
        "uid": view.file.uid,
        "page_count": view.file.page_count,
    }
    arrays: dict[str, Any] = {
        **tree_arrays,
        "lengths": view.lengths,
        "pages": view.extent_pages,
        "lives": view.writer_ids,
        "heat": view.probe_counts.copy(),  # searches go on counting while it is written
        "far": view.outlier_rows,
    }
    return sealed_file.write(path, MAGIC, header, arrays)


def read(path: Path, metric: int, wanted: dict[str, Any], *, writable: bool) -> ListsState:
    """The state, with no list in memory. Raises Corruption, or FileNotFoundError."""
    header, found = sealed_file.read(path, MAGIC, VERSION)
    sealed_file.check_header(path, header, wanted)
    sections = {name: np.array(array) for name, array in found.items()}
    coder, heads = tree_of(metric, header, found)
    lengths, pages = sections["lengths"], sections["pages"]
    if len(lengths) != heads.count or len(pages) != heads.count:
        raise sealed_file.corrupt_file_error(
            path, "sections", f"{heads.count} lists", f"{len(lengths)} lengths, {len(pages)} pages"
        )
    file = ListFile.open(
        path.parent / header["file"], header["uid"], coder.entry_bytes, header["page_count"], writable=writable
    )
    view = replace(
        empty_view(coder, heads, 0, header["replicas"]), body_offsets=np.where(lengths == 0, 0, -1), lengths=lengths,
        extent_pages=pages, writer_ids=sections["lives"], probe_counts=sections["heat"], outlier_rows=sections["far"],
        file=file, indexed=header["indexed_rows"],
    )  # fmt: skip
    return ListsState(view, header["sequence"], header["built_rows"], view.replicas)


def tree_parts(coder: EntryCoder, heads: Heads) -> tuple[dict[str, Any], dict[str, Any]]:
    """(header, sections) of a coder and heads, as `tree_of` takes them."""
    header = {
        "lossless": coder.lossless,
        "scale": coder.quantiser.scale,
        "trained_rows": coder.quantiser.trained_rows,
        "add_unit": coder.add_unit,
        "rescale_unit": coder.rescale_unit,
        "error": coder.error,
    }
    arrays = {
        "mean": coder.quantiser.mean,
        "center": coder.center,
        "signs": coder.signs,
        "head_codes": heads.codes,
        "group_codes": heads.group_codes,
        "group_ends": heads.group_ends,
    }
    return header, arrays


def tree_of(metric: int, header: dict[str, Any], found: dict[str, Any]) -> tuple[EntryCoder, Heads]:
    """The coder and heads of a sealed file, whose header says `dim` and `bits` too."""
    sections = {name: np.array(found[name]) for name in _TREE_SECTIONS}
    quantiser = ScalarQuantizer(sections["mean"], header["scale"], header["trained_rows"], header["lossless"])
    coder = EntryCoder(
        metric, header["dim"], header["bits"], header["lossless"], quantiser, sections["center"], sections["signs"],
        header["add_unit"], header["rescale_unit"], header["error"],
    )  # fmt: skip
    codes, group_codes = sections["head_codes"], sections["group_codes"]
    return coder, Heads(codes, bias_of(codes), group_codes, bias_of(group_codes), sections["group_ends"])
