"""An HNSW index as one sealed file, and back. sealed_file.py draws the file.

magic   := "VDBHNSW\\x01"
header  := {version, kind, metric, dtype, dim, m, ef_construction, seed, indexed_rows, sequence, entry, level,
            upper_rows, spoiled, product_links, angle_links, and those of the quantizer (stored_quantizer.py)}
sections: far, codes, bias, links, slot, levels, upper, and those of the quantizer

spoiled, product_links and angle_links were added later; where one is missing, it is 0: no links are by inner product,
or by angle. version is 1 where codes are 8 bits around the metric's own origin and all links of one kind, else 2, which
programs that know nothing else refuse. Those that know 2, but not angle_links, find as many links a row as they expect
and add further rows by l2 alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vecdb.index.common import code_choice, sealed_file, stored_quantizer
from vecdb.index.contract import SealedFile
from vecdb.index.hnsw.graph import GraphView
from vecdb.index.hnsw.link_places import LinkPlaces, of_one_kind, with_angles, with_products
from vecdb.index.hnsw.state import HnswState, graph_from
from vecdb.kernels.codes.float_codes import ANGLES
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.storage.disk.row_file import RowArrays

MAGIC = b"VDBHNSW\x01"
VERSION = 1
OTHER_CODES = 2


def write(path: Path, facts: dict[str, Any], state: HnswState) -> SealedFile:
    """facts : what the header says of the collection and its parameters, kind to ef_construction."""
    view = state.view
    n = view.indexed if view is not None else 0
    header: dict[str, Any] = {
        "version": VERSION,
        **facts,
        "seed": state.seed,
        "indexed_rows": n,
        "sequence": state.removed,
        "entry": view.entry if view is not None else -1,
        "level": view.level if view is not None else 0,
        "upper_rows": state.upper_used,
    }
    arrays: dict[str, NDArray[Any]] = {}
    if view is not None:
        graph = view.graph
        quantiser = graph.quantiser
        is_plain = code_choice.is_ordinary(quantiser, view.metric) and graph.places.second == 0
        header.update(
            version=VERSION if is_plain else OTHER_CODES,
            **stored_quantizer.header_of(quantiser),
            spoiled=state.spoiled,
            **_stored_places(graph.places),
        )
        arrays = {
            **stored_quantizer.sections_of(quantiser),
            "far": graph.far[graph.far < n],
            "codes": graph.codes[:n],
            "bias": graph.bias[:n],
            "links": graph.links[:n],
            "slot": graph.slot[:n],
            "levels": graph.levels[:n],
            "upper": graph.upper[: state.upper_used],
        }
    written = sealed_file.write(path, MAGIC, header, arrays)
    return SealedFile(written, n, state.removed)


def read(path: Path, facts: dict[str, Any], arrays: RowArrays, mapped: bool) -> HnswState:
    """facts : that the header must state.   arrays : of the rows.   mapped : keep links in the page cache, read-only.

    Raises Corruption when the file is damaged or states other facts.
    """
    header, sections = sealed_file.read(path, MAGIC, VERSION, OTHER_CODES)
    sealed_file.check_header(path, header, facts)
    if not sections:
        return HnswState(None, 0, 0, header["sequence"], header["seed"])
    quantiser = stored_quantizer.read(path, header, sections)
    metric = METRIC_CODES[facts["metric"]]
    graph = graph_from(sections, quantiser, arrays, facts["m"], _read_places(header), metric, mapped)
    n = header["indexed_rows"]
    view = GraphView(graph, arrays, metric, n, header["entry"], header["level"])
    spoiled = header.get("spoiled", False)
    return HnswState(view, n, header["upper_rows"], header["sequence"], header["seed"], spoiled)


def _stored_places(places: LinkPlaces) -> dict[str, int]:
    by_angle = places.kind == ANGLES
    return {"product_links": 0 if by_angle else places.second, "angle_links": places.second if by_angle else 0}


def _read_places(header: dict[str, Any]) -> LinkPlaces:
    if header.get("angle_links", 0):
        return with_angles(header["m"])
    return with_products(header["m"]) if header.get("product_links", 0) else of_one_kind(header["m"])
