"""Kept results: JSON files in bench/results, of which README's figures are made.

    {"format": 1, "benchmark": "run", "date": "2026-11-30", "commit": ..., "command": "vecdb bench run ...", "how": "",
     "machine": {...}, "versions": {...}, "kernels": ..., "plan": {...}, "data": {...},
     "rows": {"points": [{...}, ...], "builds": [{...}, ...]}}

A kept result says where and how it was measured, but names no host and no folder. `how` is empty where `command` was
run on a tree of `commit` and its result kept as it is; otherwise it says where the figures are from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import vecdb

FORMAT = 1
_DIGITS = 5  # that are kept of a figure: measurements differ by more
MACHINE = ("system", "processor", "features", "cache_bytes", "cores", "memory_bytes", "python", "load")
_FOLDERS = ("folder", "kept", "path")  # of a plan
_FOLDER_OPTION = re.compile(r" --(?:folder|kept|path|out)[ =]\S+")
_PATH = re.compile(r"(?<![\w.:/])(?:~|\.{1,2})?/(?:[^\s,=/]+/)*([^\s,=/]+)")

Rows = Sequence[Mapping[str, Any]]


class Kept(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """rows : tables by name; which there are depends on the benchmark.   machine : empty where it is not known."""

    format: int
    benchmark: str
    date: str
    commit: str
    command: str
    how: str
    machine: dict[str, Any]
    versions: dict[str, str]
    kernels: str
    plan: dict[str, Any]
    data: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]

    @property
    def clock(self) -> str:
        """What its seconds are: time that passed (wall), or processor time (cpu)."""
        return str(self.plan.get("clock", "wall"))


def of_result(result: Mapping[str, Any], command: str, commit: str) -> Kept:
    """What is kept of a result of `vecdb bench`. Raises InvalidArgument where `result` is none."""
    try:
        where = result["machine"]
        rows = _ROWS.get(result["benchmark"], _tables)(result)
        return Kept(
            format=FORMAT,
            benchmark=result["benchmark"],
            date=where["when"][:10],
            commit=commit,
            command=_without_folders(command),
            how="",
            machine=_machine(where),
            versions={name: version for name, version in where["versions"].items() if version} | _versions(result),
            kernels=where["kernels"],
            plan=_plain({name: value for name, value in result.get("plan", {}).items() if name not in _FOLDERS}),
            data=_plain(result.get("data", {})),
            rows={name: _plain(list(some)) for name, some in rows.items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise vecdb.InvalidArgument(f"this is no result of `vecdb bench`: {type(error).__name__}: {error}") from None


def write(kept: Kept, file: Path) -> None:
    """Write a kept result, a row a line."""
    head = msgspec.to_builtins(kept)
    tables = head.pop("rows")
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    parts = [
        f"  {json.dumps(name)}: [\n" + ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in some) + "\n  ]"
        for name, some in tables.items()
        if some
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "{\n" + ",\n".join(lines) + ',\n "rows": {\n' + ",\n".join(parts) + "\n }\n}\n"
    file.write_text(text, encoding="utf-8")


def read(file: Path) -> Kept:
    """Read a kept result. Raises NotFound, or InvalidArgument where it is damaged or of another format."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        raise vecdb.NotFound(f"no kept result {file}: measure it, and keep it by `vecdb bench keep`") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise vecdb.InvalidArgument(f"{file} is no kept result: {error}") from None
    if found.format != FORMAT:
        raise vecdb.InvalidArgument(f"{file} has format {found.format}; this version reads {FORMAT}")
    return found


def _machine(where: Mapping[str, Any]) -> dict[str, Any]:
    """The machine without what its owner calls his build of the system."""
    found = {name: where[name] for name in MACHINE if name in where}
    if "system" in found:
        found["system"] = re.sub(r"(\d+\.\d+).*", r"\1", found["system"])
    return found


# -- what is kept of each benchmark ------------------------------------------------------------------


def _of_run(result: Mapping[str, Any]) -> dict[str, Rows]:
    names = ("seconds", "threads", "anonymous_bytes", "disk_bytes")
    builds = [{"peer": peer} | {name: one[name] for name in names} for peer, one in result["builds"].items()]
    absent = [{"peer": peer, "why": why} for peer, why in result["absent"].items()]
    return {"points": result["points"], "builds": builds, "absent": absent}


def _of_disk(result: Mapping[str, Any]) -> dict[str, Rows]:
    builds = [
        {"peer": peer, "memory_bytes": result["memory"][peer]} | {name: one[name] for name in ("seconds", "disk_bytes")}
        for peer, one in result["builds"].items()
    ]
    return {"points": result["points"], "builds": builds, "disk": [result["disk"]]}


def _of_tenants(result: Mapping[str, Any]) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    if "search" in result:
        found |= {"points": result["search"]["points"], "best": list(result["search"]["best"].values())}
    if "memory" in result:
        found["memory"] = [{"contestant": name} | one for name, one in result["memory"]["bytes"].items()]
    if "sizes" in result:
        found["sizes"] = [
            {"rows": one["rows"], "way": way} | point
            for one in result["sizes"]["points"]
            for way, point in one["ways"].items()
        ]
    if "writes" in result:
        found["writes"] = [{"what": what} | one for what, one in result["writes"].items()]
    return found or _tables(result)


def _of_filters(result: Mapping[str, Any]) -> dict[str, Rows]:
    if "peers" not in result:
        return _tables(result)
    failed = [{"peer": peer, "why": why} for peer, why in result["peers"]["failed"].items()]
    answers = _tables(result).get("answers by default", [])
    return {"points": result["peers"]["points"], "failed": failed, "answers": answers}


def _of_ingest(result: Mapping[str, Any]) -> dict[str, Rows]:
    best = {name: max(result[name], key=lambda one: one["rows_per_second"]) for name in ("singles", "batches")}
    return {name: [one] for name, one in (best | {"sustained": result["sustained"]}).items()}


def _versions(result: Mapping[str, Any]) -> dict[str, str]:
    """Of peers that run under interpreters of their own."""
    builds: Mapping[str, Any] = result.get("builds", {})
    return {peer: one["version"] for peer, one in builds.items() if "version" in one}


def _tables(result: Mapping[str, Any]) -> dict[str, Rows]:
    return dict(result["tables"])


_ROWS: dict[str, Callable[[Mapping[str, Any]], dict[str, Rows]]] = {
    "run": _of_run, "disk": _of_disk, "tenants": _of_tenants, "filters": _of_filters, "ingest": _of_ingest,
}  # fmt: skip


def _plain(value: Any) -> Any:
    """The value with figures of few digits, and file names in the place of paths."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, str):
        return _PATH.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _without_folders(command: str) -> str:
    """The command without the options that name folders; interpreters are called PYTHON, and files by their names."""
    short = re.sub(r"=[^\s,=]*/python[\d.]*(?=[\s,]|$)", "=PYTHON", _FOLDER_OPTION.sub("", command))
    return _PATH.sub(r"\1", short)
