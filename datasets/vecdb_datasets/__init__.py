"""Vectors to try, measure and import: files of many formats, named data sets, exact ground truth.

formats/            files of vectors, read and written
registry.py         data sets by name
download.py         standard sets from their public addresses
truth.py            exact neighbours, and recall
export.py           files of ann-benchmarks and VIBE
harness_folders.py  folders of other harnesses
"""

from . import download
from .dataset import Dataset
from .export import export_ann_benchmarks, export_vibe, load_ann_benchmarks, shuffled
from .folders import read_truth_file, write_truth_file
from .formats import FORMATS, VectorSource, VectorWriter, create_vectors, open_vectors, sniff, write_vectors
from .glove import glove_installed, glove_words
from .harness_folders import (
    Csr,
    RangeTruth,
    export_big_ann,
    export_vectordbbench,
    read_range_truth,
    read_spmat,
    write_spmat,
)
from .registry import DatasetInfo, list_datasets, load
from .synthetic import Clustered
from .tenant_sharing import Shared
from .truth import Truth, exact_truth, recall, recall_per_query
from .truth_cache import content_digest

__all__ = [
    "Clustered",
    "Csr",
    "Dataset",
    "DatasetInfo",
    "FORMATS",
    "RangeTruth",
    "Shared",
    "Truth",
    "VectorSource",
    "VectorWriter",
    "content_digest",
    "create_vectors",
    "download",
    "exact_truth",
    "export_ann_benchmarks",
    "export_big_ann",
    "export_vectordbbench",
    "export_vibe",
    "glove_installed",
    "glove_words",
    "list_datasets",
    "load",
    "load_ann_benchmarks",
    "open_vectors",
    "read_range_truth",
    "read_spmat",
    "read_truth_file",
    "recall",
    "recall_per_query",
    "shuffled",
    "sniff",
    "write_spmat",
    "write_truth_file",
    "write_vectors",
]
