"""The house keeps the shape that ARCHITECTURE.md draws: floors, absences, public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vecdb

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vecdb"

# A file imports only from its own floor or a lower one. A new module says here on which floor it stands.
FLOORS: dict[int, set[str]] = {
    6: {"cli"},
    4: {"__init__", "aio", "client", "interop", "v1", "wire"},
    3: {
        "access",
        "answering",
        "backup",
        "catalog",
        "check",
        "collection",
        "commit",
        "contracts",
        "database",
        "debris",
        "engine",
        "following",
        "fold",
        "generation",
        "hits",
        "home",
        "journal",
        "lifecycle",
        "maintenance",
        "mixture",
        "once",
        "pairs",
        "planner",
        "reads",
        "stopping",
        "tables",
        "tenancy",
        "tuning",
        "upkeep",
        "vacuum",
        "ways",
        "writes",
    },
    2: {"index"},
    1: {"kernels", "storage"},
    0: {"errors", "filters", "limits", "schema", "validate"},
}
STRANGERS = {frozenset({"kernels", "storage"})}  # on one floor, but know nothing of each other
OUTSIDE = {"vecdb_server": "server", "vecdb_bench": "bench", "vecdb_datasets": "datasets"}  # floor 5: public names only

PUBLIC = [
    "AlreadyExists",
    "Collection",
    "Corruption",
    "Curator",
    "DType",
    "Database",
    "Flat",
    "Hits",
    "Hnsw",
    "InvalidArgument",
    "LimitExceeded",
    "Locked",
    "Metric",
    "NotFound",
    "PermissionDenied",
    "Poisoned",
    "Record",
    "SearchParams",
    "Spann",
    "Unavailable",
    "VecdbError",
    "__version__",
    "aio",
    "open",
    "restore",
    "upgrade",
]


# -- reading the tree ------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "v1" not in path.relative_to(folder).parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def part_of(path: Path) -> str:
    """The top-level part of vecdb that a file belongs to: `index` for vecdb/index/flat.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, at any depth, relative names made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def floor_of(part: str) -> int:
    return next(floor for floor, parts in FLOORS.items() if part in parts)


def called(node: ast.Call) -> str:
    """`open` for open(...), `os.open` for os.open(...), `.read_text` for a method of anything else."""
    function = node.func
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute):
        owner = function.value
        return f"{owner.id}.{function.attr}" if isinstance(owner, ast.Name) else f".{function.attr}"
    return ""


def constant(node: ast.expr) -> object:
    """The value of a literal; None for anything that must be computed."""
    return node.value if isinstance(node, ast.Constant) else None


VECDB_FILES = files_of(PACKAGE)
ALL_FILES = VECDB_FILES + [path for name, folder in OUTSIDE.items() for path in files_of(ROOT / folder / name)]


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


# -- floors ----------------------------------------------------------------------------------------


def test_every_part_of_vecdb_stands_on_one_floor() -> None:
    known = [part for parts in FLOORS.values() for part in parts]
    assert len(known) == len(set(known))
    assert {part_of(path) for path in VECDB_FILES} - set(known) == set(), "name its floor in FLOORS"


def test_a_file_imports_only_from_its_own_floor_or_lower() -> None:
    wrong = []
    for path in VECDB_FILES:
        part = part_of(path)
        for line, name in imports_of(path):
            if name.split(".")[0] != "vecdb":
                continue
            words = name.split(".")
            named = words[1] if len(words) > 1 else "__init__"
            other = named if any(named in parts for parts in FLOORS.values()) else "__init__"
            if floor_of(other) > floor_of(part) or frozenset({part, other}) in STRANGERS:
                wrong.append(f"{place(path, line)} ({part}) imports {name} ({other})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", OUTSIDE)
def test_server_bench_and_datasets_use_public_names_only(package: str) -> None:
    # the contract, which client and server have in common; load and echo speak it bare
    shared = {"vecdb_server": ("wire", "v1"), "vecdb_bench": ("v1",)}.get(package, ())
    wrong = []
    for path in files_of(ROOT / OUTSIDE[package] / package):
        for line, name in imports_of(path):
            words = name.split(".")
            if (
                words[0] == "vecdb"
                and words[1:] not in ([], *([public] for public in PUBLIC))
                and words[1] not in shared
            ):
                wrong.append(f"{place(path, line)} imports {name}")
    assert not wrong, "\n".join(wrong)


# -- absences --------------------------------------------------------------------------------------


def importers(module: str, files: list[Path]) -> set[str]:
    """Files that import `module`, relative to the root."""
    return {
        str(path.relative_to(ROOT)) for path in files if any(n.split(".")[0] == module for _, n in imports_of(path))
    }


def test_only_the_store_imports_lmdb() -> None:
    assert importers("lmdb", ALL_FILES) == {"vecdb/storage/kv/store.py"}


def test_only_kernels_import_numba() -> None:
    found = importers("numba", VECDB_FILES) | importers("llvmlite", VECDB_FILES)
    assert found and all(name.startswith("vecdb/kernels/") for name in found), found


def test_only_server_and_client_import_grpc() -> None:
    # the service is measured by a client without vecdb's own, and beside a server that does nothing: the ceiling
    allowed = ("vecdb/client/", "server/", "bench/vecdb_bench/serving/")
    found = importers("grpc", ALL_FILES)
    assert all(name.startswith(allowed) for name in found), found


def test_only_the_seam_to_the_os_opens_files() -> None:
    openers = {"open", "os.open", "os.fdopen", "io.open", ".read_text", ".read_bytes", ".write_text", ".write_bytes"}
    openers |= {"np.load", "np.save", "np.memmap", "np.fromfile", ".tofile"}
    # the cli writes reports and exports, never a database; the kernels read their own sources to name their cache
    excused = {PACKAGE / "storage" / "filesystem.py", PACKAGE / "kernels" / "__init__.py"}
    wrong = [
        place(path, node.lineno)
        for path in VECDB_FILES
        if path not in excused and part_of(path) != "cli"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and called(node) in openers
    ]
    assert not wrong, wrong


def test_nothing_unpickles_or_evaluates() -> None:
    wrong = [place(path, 0) for path in ALL_FILES for _, name in imports_of(path) if name.split(".")[0] == "pickle"]
    for path in ALL_FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and called(node) in {"eval", "exec"}:
                wrong.append(place(path, node.lineno))
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and constant(node.value) is not False:
                wrong.append(place(path, node.value.lineno))
    assert not wrong, wrong


def test_no_kernel_gives_up_nan_checks() -> None:
    wrong = []
    for path in VECDB_FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.keyword) and node.arg == "fastmath" and constant(node.value) is True:
                wrong.append(place(path, node.value.lineno))
            if isinstance(node, ast.Constant) and node.value in ("nnan", "ninf"):
                wrong.append(place(path, node.lineno))
    assert not wrong, wrong


def test_no_module_keeps_what_is_filled_later_but_what_a_fork_inherits() -> None:
    makers = {"list", "dict", "set", "deque", "defaultdict", "Counter", "WeakSet", "WeakValueDictionary", "local"}
    found = set()
    for path in ALL_FILES:
        for node in tree_of(path).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                value = node.value
                empty = isinstance(value, (ast.List, ast.Dict)) and not ast.unparse(value).strip("[]{}")
                if empty or (isinstance(value, ast.Call) and called(value).split(".")[-1] in makers):
                    found.add(
                        f"{path.name}: {ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)}"
                    )
    assert found == {"connection.py: _open", "connection.py: _inherited"}


def test_nothing_phones_home() -> None:
    talkers = {"socket", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "smtplib", "webbrowser"}
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in ALL_FILES
        if not str(path.relative_to(ROOT)).startswith(("vecdb/client/", "server/"))
        for line, name in imports_of(path)
        if name.split(".")[0] in talkers
    ]
    assert not wrong, wrong


# -- words -----------------------------------------------------------------------------------------


def test_a_file_that_is_named_anywhere_is_there() -> None:
    there = {path.name for folder in (ROOT / "tests", ROOT / "vecdb") for path in folder.rglob("*.py")}
    there |= {path.name for path in ALL_FILES}
    wrong = [
        f"{place(path, line)} names {name}"
        for path in [*ALL_FILES, ROOT / "ARCHITECTURE.md", ROOT / "README.md", ROOT / "server" / "README.md"]
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for name in re.findall(r"\b[a-z_]\w*\.py\b", text)
        if name not in there
    ]
    assert not wrong, "\n".join(wrong)


# -- public names ----------------------------------------------------------------------------------


def test_public_names_are_these_and_sorted() -> None:
    assert vecdb.__all__ == PUBLIC == sorted(PUBLIC)


def test_every_public_name_is_there() -> None:
    for name in PUBLIC:
        assert getattr(vecdb, name) is not None
    assert set(PUBLIC) <= set(dir(vecdb))
    with pytest.raises(AttributeError, match="no_such_name"):
        vecdb.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("statement", ["import vecdb", "import vecdb; vecdb.Hnsw(); vecdb.SearchParams(ef=10)"])
def test_importing_vecdb_loads_nothing_heavy(statement: str) -> None:
    heavy = {"numba", "llvmlite", "lmdb", "numpy", "msgspec", "typer", "rich", "grpc"}
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if m in {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
