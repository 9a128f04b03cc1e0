"""VectorDBBench's command line with vecdb in it: `python -m vecdb_bench.vectordbbench.command vecdb --uri ...`. Its own
commands are there too, and take sets of one's own as `vecdb` does.
"""

from vecdb_bench.vectordbbench.register import register

MEMBER = register()  # in every process that is spawned, before what it is sent is read

from typing import Annotated, Unpack  # noqa: E402

import click  # noqa: E402
from pydantic import SecretStr  # noqa: E402
from vectordb_bench.cli import cli as upstream  # noqa: E402
from vectordb_bench.cli.cli import (  # noqa: E402
    CommonTypedDict,
    click_parameter_decorators_from_typed_dict,
    run,
)

from vecdb_bench.vectordbbench.config import VecdbCaseConfig, VecdbConfig  # noqa: E402
from vecdb_bench.vectordbbench.own_sets import register_set, with_own_sets  # noqa: E402

register_set()
upstream.get_custom_case_config = with_own_sets(upstream.get_custom_case_config)


class VecdbOptions(CommonTypedDict):
    uri: Annotated[str, click.option("--uri", default="./vecdb-data", help="A directory, or grpc://host:port.")]
    token: Annotated[str | None, click.option("--token", default=None, help="For a server that asks for one.")]
    kind: Annotated[str, click.option("--kind", default="hnsw", help="hnsw, spann, curator or flat.")]
    m: Annotated[int, click.option("--m", default=16, help="hnsw: links per node.")]
    ef_construction: Annotated[int, click.option("--ef-construction", default=200, help="hnsw: beam while building.")]
    ef: Annotated[int | None, click.option("--ef", type=int, default=None, help="hnsw: beam of a search.")]
    nprobe: Annotated[int | None, click.option("--nprobe", type=int, default=None, help="spann: lists of a search.")]


@upstream.cli.command(name="vecdb")
@click_parameter_decorators_from_typed_dict(VecdbOptions)
def command(**parameters: Unpack[VecdbOptions]) -> None:
    run(
        db=MEMBER,
        db_config=VecdbConfig(
            db_label=parameters["db_label"],
            uri=parameters["uri"],
            token=SecretStr(parameters["token"]) if parameters["token"] else None,
        ),
        db_case_config=VecdbCaseConfig(
            **{name: parameters[name] for name in ("kind", "m", "ef_construction", "ef", "nprobe")}
        ),
        **parameters,
    )


if __name__ == "__main__":
    from vectordb_bench.cli.vectordbbench import cli  # the same group, with the commands of all other databases

    cli()
