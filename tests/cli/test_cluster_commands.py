"""`vecdb cluster ...`: what it says and refuses, without Ray. Servers and jobs: tests/shards and tests/ray."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import vecdb
from tests.support.shards.written_cluster import WrittenCluster
from vecdb.cli import build
from vecdb.cli.cluster import COMMANDS
from vecdb.cli.cluster.servers import cluster_of
from vecdb.cluster.placement import Placement, bucket_url
from vecdb.ray import servers
from vecdb.shards import notes
from vecdb.shards.servers.member import MemberSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "server" / "examples"


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(build(), ["cluster", *[str(word) for word in words], "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    made = WrittenCluster(tmp_path, 2)
    yield made
    made.close()


def test_a_plan_is_calculated_and_nonsense_is_refused() -> None:
    made = run("plan", "--rows", "1.5B", "--dim", 128, "--dtype", "uint8", "--queries", 9_000)
    assert made["rows"] == 1_500_000_000 and made["queries_a_second"] >= 9_000 and "latency_ms" in made["estimates"]
    own = run("plan", "--rows", "100M", "--dim", 96, "--machine", "16,128,3750,900")
    assert own["machine"] == "machines" and own["dollars"] % 900 == 0
    for words in (("--rows", "many"), ("--rows", "1M", "--machine", "1,2"), ("--rows", "1M", "--machine", "0,1,1,1")):
        assert run("plan", *words, "--dim", 8, code=1)["error"]["code"] == "INVALID_ARGUMENT"
    shown = CliRunner().invoke(build(), ["cluster", "plan", "--rows", "1B", "--dim", "768"])
    assert "(estimate)" in shown.stdout


def test_the_status_shows_servers_that_do_not_answer(cluster: WrittenCluster) -> None:
    Placement.change(cluster.bucket, lambda now: now.with_writer(0, "grpc://127.0.0.1:1"))
    found = run("status", cluster.url)
    assert [(one["shard"], one["role"], one["answers"]) for one in found["servers"]] == [
        (0, "writer", False), (1, "-", False),
    ]  # fmt: skip
    assert sum(one["slots"] for one in found["servers"]) == 4_096


def test_a_copy_is_promoted_in_the_placement(cluster: WrittenCluster) -> None:
    Placement.change(cluster.bucket, lambda now: now.with_copies(1, ("grpc://a:1", "grpc://b:1")))
    assert run("promote", cluster.url, "--shard", 1, "--to", "grpc://b:1")["writer"] == "grpc://b:1"
    assert cluster.placement.shards[1].writer == "grpc://b:1" and cluster.placement.shards[1].copies == ("grpc://a:1",)
    assert (
        "no server of shard 0"
        in run("promote", cluster.url, "--shard", 0, "--to", "grpc://b:1", code=1)["error"]["message"]
    )


def test_what_is_no_cluster_is_said(cluster: WrittenCluster, tmp_path: Path) -> None:
    nowhere = f"cluster://{tmp_path}/nowhere"
    for words in (("status", nowhere), ("down", nowhere), ("reshape", nowhere, "--abandon")):
        assert run(*words, code=1)["error"]["code"] == "NOT_FOUND"
    assert run("status", "s3://bucket", code=1)["error"]["code"] == "INVALID_ARGUMENT"
    assert "--shards N" in run("reshape", cluster.url, code=1)["error"]["message"]
    assert "is not being reshaped" in run("reshape", cluster.url, "--abandon", code=1)["error"]["message"]


def test_servers_that_nobody_ends_are_named(cluster: WrittenCluster) -> None:
    notes.want(cluster.bucket, notes.ServersWanted("run", True), None)
    assert run("down", cluster.url)["ended"]
    assert notes.wanted(cluster.bucket) == notes.ServersWanted("run", False)
    assert not notes.want(cluster.bucket, notes.ServersWanted("other", True), None)


def test_servers_that_are_started_again_are_as_many_as_before(tmp_path: Path) -> None:
    url = f"cluster://{tmp_path}/c"
    settings = servers.UpSettings(url, 2, None, str(tmp_path), MemberSettings(url, 0, ""))
    assert servers.prepare(settings)[1].copies == 1
    assert servers.prepare(replace(settings, copies=2))[1].copies == 2
    servers.end(url, 0.0)
    assert servers.prepare(replace(settings, shards=None))[1].copies == 2
    with pytest.raises(vecdb.InvalidArgument, match="from 0 to 16"):
        servers.prepare(replace(settings, copies=17))


def test_where_a_cluster_lies(tmp_path: Path) -> None:
    assert cluster_of(None, tmp_path) == f"cluster://{tmp_path}/bucket"
    assert bucket_url(cluster_of("s3://bucket/prefix", tmp_path)) == "s3://bucket/prefix"
    assert bucket_url(cluster_of(f"file://{tmp_path}", tmp_path)) == f"file://{tmp_path}"
    assert cluster_of("cluster://gs/bucket/a", tmp_path) == "cluster://gs/bucket/a"


@pytest.mark.parametrize("name", ["cluster.yaml", "vecdb-shard@.service"])
def test_examples_use_options_that_there_are(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    command: Any = typer.main.get_command(build())
    known = {word for one in command.commands["cluster"].commands["join"].params for word in one.opts}
    used = set(
        re.findall(r"(--[a-z][a-z-]*)\b", text.partition("join")[2].partition("env:")[0].partition("Environment=")[0])
    )
    assert {"--shard", "--path", "--listen", "--address"} <= used <= known
    assert set(COMMANDS) == set(command.commands["cluster"].commands)
