"""Vectors to try, measure and import: files of many formats, named data sets, exact ground truth.

formats/      files of vectors, read and written       registry.py   data sets by name
truth.py      exact neighbours, and recall             export.py     files of ann-benchmarks
"""

from .dataset import Dataset
from .export import export_ann_benchmarks, load_ann_benchmarks
from .folders import read_truth_file, write_truth_file
from .formats import FORMATS, VectorSource, VectorWriter, create_vectors, open_vectors, sniff, write_vectors
from .glove import glove_installed, glove_words
from .registry import DatasetInfo, list_datasets, load
from .synthetic import Clustered
from .tenant_sharing import Shared
from .truth import Truth, exact_truth, recall, recall_per_query
from .truth_cache import content_digest

__all__ = [
    "Clustered",
    "Dataset",
    "DatasetInfo",
    "FORMATS",
    "Shared",
    "Truth",
    "VectorSource",
    "VectorWriter",
    "content_digest",
    "create_vectors",
    "exact_truth",
    "export_ann_benchmarks",
    "glove_installed",
    "glove_words",
    "list_datasets",
    "load",
    "load_ann_benchmarks",
    "open_vectors",
    "read_truth_file",
    "recall",
    "recall_per_query",
    "sniff",
    "write_truth_file",
    "write_vectors",
]
