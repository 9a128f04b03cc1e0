"""What a cluster of so many rows needs: disk, memory, machines, queries a second, time, money.

    rows, dim, dtype, index --bytes of a row--> shards --the smallest machine that holds one--> machines, money
                            --time of a query--> queries a second, latency

Figures that were measured are in `Measured`, each with what it was measured on; what is a guess is in `Guessed`, and
every number of a `SizePlan` that rests on a guess is named in `estimates`. Rows of a shard are spread evenly by a hash.
Each shard is asked by every query, so that shards make room, and copies make queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vecdb import limits
from vecdb.errors import InvalidArgument
from vecdb.validate.common import short_repr

_ABOUT = 1.1  # machines that cost so much more are as cheap
_MONTH_S = 30.4 * 24 * 3_600
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1, "uint8": 1}
INDEXES = ("spann", "spann-disk", "hnsw")  # codes in memory, codes on disk, a graph in memory


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes a row, seconds, and rates, as they were measured (bench/results, and `vecdb bench`).

    spann_rate, spann_disk_rate : queries a second of one core at recall@10 0.95, 1,000,000 x 128 uint8, of the search
        alone.   hnsw_rate : the same of a graph, 200,000 x 128 float32.   call_s : CPU time of a server for one call
        over gRPC beside that.   rpc_s : a call's time over loopback.   leg_s : CPU time of a client for each shard it
        asks.   build_rate : rows a second and core until an index is there, 1,000,000 x 128 uint8.
    lmdb_bytes : ids, checksums and bookkeeping of a row, without fields.   server_bytes : of a process that serves.
    """

    spann_rate: float = 1_134.0
    spann_disk_rate: float = 1_134.0 / 1.3
    hnsw_rate: float = 30_224.0
    call_s: float = 1 / 2_831
    rpc_s: float = 0.0006
    leg_s: float = 0.00035
    build_rate: float = 9_600.0
    hnsw_build_rate: float = 5_000.0
    lmdb_bytes: float = 75.0
    heads_a_row: float = 0.02
    code_overhead_bytes: float = 12.0  # of a list's entry, beside the bits of its code
    list_slack: float = 1.5  # lists on disk: pages, and replicas
    memory_slack: float = 1.1
    graph_links_bytes: float = 153.0  # of a row, m=16
    row_bytes: float = 16.0  # deletions and ids of a row in memory, any index
    server_bytes: float = 217e6


@dataclass(frozen=True, slots=True)
class Guessed:
    """What nobody has measured at this size.

    rows_exponent : the rate falls with the rows of a shard to this power: a list index scans more heads and lists.
    dim_exponent : and with the dimension.   graph_rows_exponent : of a graph.   remote_ack_s : of a durable write into
    object storage, p50.   network_s : between two machines.   disk_free, memory_free : shares left unused.
    rows_a_shard : that one shard may have at most: a directory holds some more, of which dead rows need a part until a
    vacuum.   fetch_bytes_s : at which a new copy is fetched.
    """

    rows_exponent: float = 0.2
    dim_exponent: float = 0.6
    graph_rows_exponent: float = 0.15
    remote_ack_s: float = 0.110
    network_s: float = 0.0002
    disk_free: float = 0.3
    memory_free: float = 0.25
    rows_a_shard: float = 1.5e9
    fetch_bytes_s: float = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """dollars : a month, on demand. Prices change: give your own."""

    name: str
    cores: int
    memory_bytes: float
    disk_bytes: float
    dollars: float


MACHINES = (
    Machine("i7i.xlarge", 4, 32e9, 0.94e12, 272.0),
    Machine("i7i.2xlarge", 8, 64e9, 1.9e12, 544.0),
    Machine("i7i.4xlarge", 16, 128e9, 3.75e12, 1_087.0),
    Machine("i7i.8xlarge", 32, 256e9, 7.5e12, 2_174.0),
)
STORE_DOLLARS_A_BYTE = 0.023e-9  # a month
PUT_DOLLARS, GET_DOLLARS = 5e-6, 0.4e-6  # a request


@dataclass(frozen=True, slots=True)
class SizePlan:
    """Bytes of one server of each shard together; times `servers` for all. latency_ms : p50 of one query.
    remote_write_ms : of a write with durability "remote". build_hours : of all shards side by side. copy_minutes : to
    fetch a new copy of a shard. dollars : a month, of machines; store_dollars : of the bucket. estimates : what of this
    rests on guesses.
    """

    rows: int
    dim: int
    dtype: str
    index: str
    shards: int
    servers: int
    machine: str
    disk_bytes: float
    memory_bytes: float
    queries_a_second: float
    latency_ms: float
    remote_write_ms: float
    build_hours: float
    copy_minutes: float
    dollars: float
    store_dollars: float
    estimates: tuple[str, ...] = field(default=())


def plan(
    rows: int,
    dim: int,
    dtype: str = "float32",
    *,
    index: str = "spann",
    servers: int = 2,
    queries_a_second: float = 0.0,
    field_bytes: float = 0.0,
    machines: tuple[Machine, ...] = MACHINES,
    measured: Measured = Measured(),
    guessed: Guessed = Guessed(),
) -> SizePlan:
    """The cluster of equal machines that holds so many rows: of the cheapest, within a tenth, the one with the fewest
    shards.

    rows, dim, dtype : of the collection.   index : "spann" with codes in memory, "spann-disk" with codes on disk, or
    "hnsw".   servers : of each shard, the writer and its copies.   queries_a_second : that all servers together must
    answer, one a call: more servers a shard where they are needed.   field_bytes : of a record's fields, as stored.

    Raises InvalidArgument, also where no machine holds a shard.
    """
    _check(rows, dim, dtype, index, servers)
    found = [
        one
        for machine in machines
        if (one := _on(machine, rows, dim, dtype, index, servers, queries_a_second, field_bytes, measured, guessed))
    ]
    if not found:
        raise InvalidArgument(
            f"{rows:,} x {dim} {dtype} fits into no {limits.cluster_shards_max} shards on these machines "
            f"({', '.join(one.name for one in machines)}): give larger ones, or index='spann-disk'"
        )
    cheapest = min(one.dollars for one in found)
    return min((one for one in found if one.dollars <= _ABOUT * cheapest), key=lambda one: (one.shards, one.dollars))


def _check(rows: int, dim: int, dtype: str, index: str, servers: int) -> None:
    if not 1 <= rows <= 10**13:
        raise InvalidArgument(f"rows must be from 1 to 10,000,000,000,000, got {short_repr(rows)}")
    if not 1 <= dim <= limits.dim_max:
        raise InvalidArgument(f"dim must be from 1 to {limits.dim_max:,}, got {short_repr(dim)}")
    if dtype not in ITEM_BYTES:
        raise InvalidArgument(f"dtype must be one of {', '.join(ITEM_BYTES)}, got {short_repr(dtype)}")
    if index not in INDEXES:
        raise InvalidArgument(f"index must be one of {', '.join(INDEXES)}, got {short_repr(index)}")
    if not 1 <= servers <= limits.cluster_copies_max:
        raise InvalidArgument(
            f"servers must be from 1 to {limits.cluster_copies_max} a shard, got {short_repr(servers)}"
        )


def row_bytes_on_disk(dim: int, dtype: str, index: str, measured: Measured = Measured()) -> float:
    """Of a row without fields."""
    raw = dim * ITEM_BYTES[dtype]
    if index == "hnsw":
        return raw + dim + measured.graph_links_bytes + measured.lmdb_bytes
    return raw + measured.list_slack * _code_bytes(dim, measured) + measured.lmdb_bytes


def row_bytes_in_memory(dim: int, index: str, measured: Measured = Measured()) -> float:
    if index == "hnsw":
        return dim + measured.graph_links_bytes + measured.row_bytes
    heads = measured.heads_a_row * (dim + 64)
    codes = measured.memory_slack * _code_bytes(dim, measured) if index == "spann" else 0.0
    return heads + codes + measured.row_bytes


def search_s(rows: float, dim: int, index: str, measured: Measured = Measured(), guessed: Guessed = Guessed()) -> float:
    """One core's time for a query in a shard of so many rows, at recall@10 0.95."""
    if index == "hnsw":
        rate, exponent, at = measured.hnsw_rate, guessed.graph_rows_exponent, 2e5
    else:
        rate = measured.spann_rate if index == "spann" else measured.spann_disk_rate
        exponent, at = guessed.rows_exponent, 1e6
    return float((max(rows, at) / at) ** exponent * (max(dim, 128) / 128) ** guessed.dim_exponent / rate)


def _code_bytes(dim: int, measured: Measured) -> float:
    return dim * 2 / 8 + measured.code_overhead_bytes


def _on(
    machine: Machine,
    rows: int,
    dim: int,
    dtype: str,
    index: str,
    servers: int,
    wanted: float,
    field_bytes: float,
    measured: Measured,
    guessed: Guessed,
) -> SizePlan | None:
    """The plan on machines of one kind; None where they are too small."""
    disk = rows * (row_bytes_on_disk(dim, dtype, index, measured) + field_bytes)
    memory = rows * row_bytes_in_memory(dim, index, measured)
    room = machine.memory_bytes * (1 - guessed.memory_free) - measured.server_bytes
    shards = max(
        math.ceil(disk / (machine.disk_bytes * (1 - guessed.disk_free))),
        math.ceil(memory / room) if room > 0 else limits.cluster_shards_max + 1,
        math.ceil(rows / guessed.rows_a_shard),
    )
    if shards > limits.cluster_shards_max:
        return None
    search = search_s(rows / shards, dim, index, measured, guessed)
    rate = machine.cores / (search + measured.call_s)  # of one server of each shard
    servers = max(servers, math.ceil(wanted / rate))
    if servers > limits.cluster_copies_max:
        return None
    return SizePlan(
        rows,
        dim,
        dtype,
        index,
        shards,
        servers,
        machine.name,
        disk,
        memory + shards * measured.server_bytes,
        rate * servers,
        1e3 * (measured.rpc_s + guessed.network_s + search + measured.leg_s * (shards - 1)),
        1e3 * guessed.remote_ack_s,
        rows
        / shards
        / machine.cores
        / _build_rate(index, measured)
        * (max(dim, 128) / 128) ** guessed.dim_exponent
        / 3_600,
        disk / shards / guessed.fetch_bytes_s / 60,
        machine.dollars * shards * servers,
        disk * STORE_DOLLARS_A_BYTE + shards * _MONTH_S * (PUT_DOLLARS + 5 * (servers - 1) * GET_DOLLARS),
        _estimates(rows / shards, dim, index),
    )


def _build_rate(index: str, measured: Measured) -> float:
    return measured.hnsw_build_rate if index == "hnsw" else measured.build_rate


def _estimates(rows: float, dim: int, index: str) -> tuple[str, ...]:
    """What is not measured for a shard of this size."""
    found = ["remote_write_ms", "copy_minutes", "dollars", "store_dollars"]
    if rows > (2e5 if index == "hnsw" else 1e6) or dim > 128:
        found = ["queries_a_second", "latency_ms", "build_hours", *found]
    return tuple(found)


# -- the table of the guide ------------------------------------------------------------------------

GUIDE_ROWS = tuple(
    (rows, dim, dtype) for dim, dtype in ((128, "uint8"), (768, "float32")) for rows in (10**8, 10**9, 10**10)
)


def guide_table() -> str:
    """The table in GUIDE.md, in Markdown."""
    lines = [
        "| rows | disk | memory | machines | $ a month | bucket | queries a second | latency | build |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rows, dim, dtype in GUIDE_ROWS:
        one, low = plan(rows, dim, dtype), plan(rows, dim, dtype, index="spann-disk")
        lines.append(
            f"| {_many(rows)} x {dim} {dtype} | {_bytes(one.disk_bytes)} | {_bytes(one.memory_bytes)} or "
            f"{_bytes(low.memory_bytes)} | {one.shards} x {one.servers} {one.machine} | {_rounded(one.dollars)} | "
            f"{_rounded(one.store_dollars)} | {_rounded(one.queries_a_second)} | {one.latency_ms:.1f} ms | "
            f"{_hours(one.build_hours)} |"
        )
    return "\n".join(lines)


def _many(rows: int) -> str:
    return f"{rows // 10**9} billion" if rows >= 10**9 else f"{rows // 10**6} million"


def _bytes(value: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e3:.3g} KB"


def _rounded(value: float) -> str:
    """Two or three digits that mean something."""
    if value < 10:
        return f"{value:.1f}"
    digits = 10 ** max(0, int(math.log10(value)) - 1)
    return f"{round(value / digits) * digits:,.0f}"


def _hours(value: float) -> str:
    return f"{value:.1f} h" if value >= 1 else f"{value * 60:.0f} min"
