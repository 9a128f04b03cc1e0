"""A data set of one's own in the cases for which VectorDBBench's command line has only sets that it downloads.

Its cases look a set up by name in an enumeration. The set that --custom-dataset-dir and its like describe becomes a
member of it, in this process and, through the environment, in those that it starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import click

from vecdb_bench.vectordbbench.register import add_member

VARIABLE = "VECDB_VECTORDBBENCH_SET"
_BY_NAME = (
    "NewIntFilterPerformanceCase", "LabelFilterPerformanceCase", "StreamingPerformanceCase", "CloudPayloadSearchCase",
    "CloudColdLatencyCase", "CloudInsertCase", "CloudMultiTenantSearchCase",
)  # fmt: skip
_DESCRIBED = ("name", "dir", "size", "dim", "metric_type", "file_count", "use_shuffled", "with_gt")
_NEEDED = ("name", "dir", "size", "dim", "file_count")


def register_set() -> Any:
    """The set that this process, or the one that started it, was given: a member of `DatasetWithSizeType`; None where
    none was.
    """
    if VARIABLE not in os.environ:
        return None
    from vectordb_bench.backend.cases import PerformanceCustomDataset
    from vectordb_bench.backend.dataset import DatasetWithSizeMap, DatasetWithSizeType

    told = json.loads(os.environ[VARIABLE])
    value = f"Small {told['name']} ({told['dim']}dim, {told['size']})"  # timeouts are chosen by the first word
    for member in DatasetWithSizeType:
        if member.value == value:
            return member
    case = PerformanceCustomDataset(value, "", load_timeout=1, optimize_timeout=1, dataset_config=told)
    member = add_member(DatasetWithSizeType, value, value)
    DatasetWithSizeMap[member] = case.dataset
    return member


def with_own_sets(theirs: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """VectorDBBench's function from options to what a case is made from, with the set that the options describe."""

    def config_of_case(parameters: dict[str, Any]) -> dict[str, Any]:
        config, case = theirs(parameters), parameters["case_type"]
        if case == "PerformanceCustomDataset" and _given("label_percentage"):
            return {**config, "use_filter": True, "label_percentage": parameters["label_percentage"]}
        streams = case in ("StreamingPerformanceCase", "StreamingCustomDataset")
        if parameters["custom_dataset_dir"] is None or not (streams or case in _BY_NAME):
            return config
        told = _described(parameters)
        if streams:
            config |= _streaming(parameters)
        if case == "StreamingCustomDataset":
            return {**config, "description": parameters["custom_case_description"], "dataset_config": told}
        os.environ[VARIABLE] = json.dumps(told)
        return {**config, "dataset_with_size_type": register_set().value}

    return config_of_case


def _described(parameters: dict[str, Any]) -> dict[str, Any]:
    """What the options --custom-dataset-... say, as VectorDBBench's `CustomDatasetConfig` takes it."""
    told = {name: parameters[f"custom_dataset_{name}"] for name in _DESCRIBED}
    if missing := [name for name in _NEEDED if told[name] is None]:
        options = ", ".join(f"--custom-dataset-{name.replace('_', '-')}" for name in missing)
        raise click.UsageError(f"a set of one's own needs {options} too")
    return told


def _streaming(parameters: dict[str, Any]) -> dict[str, Any]:
    """The options of searches, where they were given: a streaming case has defaults of its own."""
    chosen = {}
    if _given("num_concurrency"):
        chosen["concurrencies"] = parameters["num_concurrency"]
    if _given("concurrency_duration"):
        chosen["read_dur_after_write"] = parameters["concurrency_duration"]
    return chosen


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source not in (None, click.core.ParameterSource.DEFAULT)
