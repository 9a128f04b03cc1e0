"""cluster plan: what a cluster of so many rows needs."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

import typer

from vecdb.cli.options import Json
from vecdb.cli.output import Output, facts, size
from vecdb.errors import InvalidArgument
from vecdb.shards.sizing import MACHINES, Machine, SizePlan
from vecdb.shards.sizing import plan as calculated

_MANY = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGbB]?)")
_TIMES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def plan(
    rows: Annotated[str, typer.Option(help="How many: 1000000, 100M, 1.5B.")],
    dim: Annotated[int, typer.Option(min=1)],
    dtype: Annotated[str, typer.Option(help="float32, float16, int8 or uint8.")] = "float32",
    index: Annotated[str, typer.Option(help="spann, spann-disk (codes on disk, too) or hnsw.")] = "spann",
    servers: Annotated[int, typer.Option(min=1, help="Of each shard, the writer and its copies.")] = 2,
    queries: Annotated[float, typer.Option(min=0.0, help="A second, that all are to answer; more copies then.")] = 0.0,
    field_bytes: Annotated[float, typer.Option(min=0.0, help="Of the fields of a record.")] = 0.0,
    machine: Annotated[
        str | None,
        typer.Option(help="Your own: cores,memory GB,disk GB,dollars a month, such as 16,128,3750,900."),
    ] = None,
    json: Json = False,
) -> None:
    """Calculate disk, memory, machines, queries a second, latency, build time and money, from measured figures."""
    machines = MACHINES if machine is None else (_machine(machine),)
    made = calculated(
        _number(rows), dim, dtype, index=index, servers=servers, queries_a_second=queries, field_bytes=field_bytes,
        machines=machines,
    )  # fmt: skip
    Output(json).emit(asdict(made), lambda console: console.print(facts(_shown(made))))


def _shown(made: SizePlan) -> dict[str, Any]:
    def guess(name: str) -> str:
        return " (estimate)" if name in made.estimates else ""

    return {
        "records": f"{made.rows:,} x {made.dim} {made.dtype}, {made.index}",
        "machines": f"{made.shards} shards x {made.servers} {made.machine}",
        "disk of one copy": size(int(made.disk_bytes)),
        "memory of one copy": size(int(made.memory_bytes)),
        "queries a second": f"{made.queries_a_second:,.0f}{guess('queries_a_second')}",
        "latency, p50": f"{made.latency_ms:.1f} ms{guess('latency_ms')}",
        "durable write into the bucket": f"{made.remote_write_ms:.0f} ms{guess('remote_write_ms')}",
        "build": f"{made.build_hours:.1f} h{guess('build_hours')}",
        "a new copy of a shard": f"{made.copy_minutes:.1f} min{guess('copy_minutes')}",
        "machines, a month": f"${made.dollars:,.0f}{guess('dollars')}",
        "bucket, a month": f"${made.store_dollars:,.0f}{guess('store_dollars')}",
    }


def _number(text: str) -> int:
    match = _MANY.fullmatch(text.replace(",", "").replace("_", "").strip())
    if match is None:
        raise InvalidArgument(f"--rows is a number such as 1000000, 100M or 1.5B, got {text!r}")
    return int(float(match[1]) * _TIMES[match[2].lower()])


def _machine(text: str) -> Machine:
    words = text.split(",")
    try:
        cores, memory, disk, dollars = int(words[0]), *(float(word) for word in words[1:])
        made = Machine("machines", cores, memory * 1e9, disk * 1e9, dollars)
    except (ValueError, TypeError):
        raise InvalidArgument(f"--machine is cores,memory GB,disk GB,dollars a month, got {text!r}") from None
    if made.cores < 1 or min(made.memory_bytes, made.disk_bytes) <= 0 or made.dollars < 0:
        raise InvalidArgument(f"--machine has cores, memory and disk above 0 and a price from 0 on, got {text!r}")
    return made
