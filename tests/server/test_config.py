"""Where settings come from, which one wins, and what is refused."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from vecdb import InvalidArgument, NotFound
from vecdb_server.config import Config, load, workers_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "vecdb.toml"
    made.write_text('path = "from-file"\nlisten = "127.0.0.1:1"\nreflection = true\ngrace_s = 3\n')
    return made


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    environment = {"VECDB_LISTEN": "127.0.0.1:2", "VECDB_GRACE_S": "4.5", "VECDB_SEED": "7", "VECDB_REFLECTION": "no"}
    config = load({"listen": "127.0.0.1:3", "path": None}, environment, file)
    assert (config.path, config.listen, config.grace_s) == ("from-file", "127.0.0.1:3", 4.5)
    assert config.reflection is False and config.durability == "full"
    assert load({}, environment, file).listen == "127.0.0.1:2"
    assert load({}, {}, file).listen == "127.0.0.1:1"
    assert load({}, {}) == Config()


@pytest.mark.parametrize(
    "text", ["no_such = 1", "grace_s = true", "path = 3", "reflection = 1", "path = ", "requests_max = 1.5"]
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=r"c\.toml"):
        load({}, {}, tmp_path / "c.toml")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no configuration"):
        load({}, {}, tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "text"), [("REQUESTS_MAX", "many"), ("REFLECTION", "maybe"), ("GRACE_S", ""), ("REQUESTS_MAX", "0")]
)
def test_a_variable_with_a_mistake_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"(?i){name}"):
        load({}, {f"VECDB_{name}": text})


@pytest.mark.parametrize("listen", ["0.0.0.0:7711", "10.1.2.3:7711", "[::]:7711", "example.org:7711"])
def test_beyond_loopback_a_server_wants_tls_and_tokens(listen: str) -> None:
    tls = {"tls_cert": "c", "tls_key": "k"}
    with pytest.raises(InvalidArgument, match="tls_cert"):
        load({"listen": listen, "tokens": "t"}, {})
    with pytest.raises(InvalidArgument, match="tokens"):
        load({"listen": listen, **tls}, {})
    assert not load({"listen": listen, "tokens": "t", **tls}, {}).local
    assert load({"listen": listen, "insecure": True}, {}).insecure


@pytest.mark.parametrize("listen", ["localhost:0", "127.0.0.9:7711", "[::1]:7711"])
def test_on_loopback_it_wants_neither(listen: str) -> None:
    assert load({"listen": listen}, {}).local


@pytest.mark.parametrize(
    "flags",
    [
        {"listen": "7711"},
        {"listen": "localhost:"},
        {"listen": "localhost:70000"},
        {"tls_cert": "c"},
        {"tls_client_ca": "c"},
        {"metrics": "0.0.0.0:9000"},
        {"log_level": "loud"},
        {"kernel_threads": -1},
        {"write_threads": 0},
        {"workers": -1},
        {"workers": 1_000},
        {"workers": 2, "listen": "unix:/tmp/s"},
        {"workers": 2, "path": ":memory:"},
        {"read_only": True, "path": ":memory:"},
    ],
)
def test_settings_that_make_no_sense_are_refused(flags: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        load(flags, {})


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (3, 2), (4, 3), (16, 15), (64, 16)])
def test_workers_are_by_the_cores_of_which_one_is_left_for_writing(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int
) -> None:
    monkeypatch.setattr("vecdb_server.config.os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("vecdb_server.config.sys.platform", "linux")
    assert workers_of(Config()) == workers == workers_of(Config(read_only=True))
    assert workers_of(Config(workers=5)) == 5 and workers_of(Config(workers=1)) == 1
    assert workers_of(Config(path=":memory:")) == 1 == workers_of(Config(listen="unix:/tmp/s"))


def test_where_a_port_is_not_shared_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb_server.config.os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("vecdb_server.config.sys.platform", "darwin")
    assert workers_of(Config()) == 1
    with pytest.raises(InvalidArgument, match="only Linux"):
        load({"workers": 2}, {})


def test_what_is_logged_does_not_say_where_secrets_lie() -> None:
    shown = Config(tokens="/secret/t", tls_cert="/public/c", tls_key="/secret/k").shown()
    assert "/secret" not in str(shown) and shown["tls_cert"] == "/public/c"
    assert set(shown) == {field.name for field in fields(Config)}


EXAMPLES = Path(__file__).resolve().parents[2] / "server" / "examples"


def test_the_examples_are_of_settings_that_there_are() -> None:
    assert load({}, {}, EXAMPLES / "vecdb.toml").tokens == "/etc/vecdb/tokens.json"
    text = (EXAMPLES / "Containerfile").read_text(encoding="utf-8")
    container = dict(re.findall(r"^ +(VECDB_\w+)=(\S+)", text, re.MULTILINE))
    assert {name.removeprefix("VECDB_").lower() for name in container} <= {field.name for field in fields(Config)}
    assert load({}, container).listen == "0.0.0.0:7711"
    tried = dict(re.findall(r"-e (VECDB_\w+)=(\S*)", text))
    assert load({}, container | tried).insecure
