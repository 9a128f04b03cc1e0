"""Makes vecdb known to VectorDBBench: a member of its enumeration of databases, with the classes that belong to it."""

from __future__ import annotations

import sys
from typing import Any

NAME = "Vecdb"


def register() -> Any:
    """The member of `vectordb_bench.backend.clients.DB`, added where it is not there yet.

    Raises RuntimeError where `vectordb_bench.models` is imported already without it: its checks know only the members
    of before.
    """
    from vectordb_bench.backend.clients import DB

    if NAME in DB.__members__:
        return DB[NAME]
    if "vectordb_bench.models" in sys.modules:
        raise RuntimeError(
            "register vecdb before vectordb_bench.models is imported: run vecdb_bench.vectordbbench.command"
        )
    member = add_member(DB, NAME, NAME)
    for name, ours in (("init_cls", _client), ("config_cls", _config)):
        type.__setattr__(DB, name, property(_chosen(member, ours, getattr(DB, name).fget)))
    theirs = DB.case_config_cls

    def case_config_cls(self: Any, index_type: Any = None) -> Any:
        return _case_config() if self is member else theirs(self, index_type)

    type.__setattr__(DB, "case_config_cls", case_config_cls)
    return member


def add_member(names: Any, name: str, value: str) -> Any:
    """A new member of an enumeration that exists."""
    member = object.__new__(names)
    member._name_, member._value_, member.__objclass__ = name, value, names
    member._sort_order_ = len(names.__members__)
    type.__setattr__(names, name, member)
    names._member_map_[name] = member
    names._member_names_.append(name)
    names._value2member_map_[value] = member
    return member


def _chosen(member: Any, ours: Any, theirs: Any) -> Any:
    return lambda self: ours() if self is member else theirs(self)


def _client() -> Any:
    from vecdb_bench.vectordbbench.client import VecdbClient

    return VecdbClient


def _config() -> Any:
    from vecdb_bench.vectordbbench.config import VecdbConfig

    return VecdbConfig


def _case_config() -> Any:
    from vecdb_bench.vectordbbench.config import VecdbCaseConfig

    return VecdbCaseConfig
