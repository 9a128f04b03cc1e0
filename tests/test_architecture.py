"""The code keeps the structure that ARCHITECTURE.md draws: floors, no circles, sizes, absences, public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import vecdb

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vecdb"

# A package imports only from lower floors; packages of one floor know nothing of each other. A new package, or a module
# that lies flat in vecdb/, says here on which floor it stands.
FLOORS: list[set[str]] = [
    {"errors", "limits", "schema"},
    {"filters", "kernels", "storage", "validate"},
    {"api", "index"},
    {"columns", "tenancy"},
    {"state"},
    {"commit", "query"},
    {"maintenance"},
    {"replication"},
    {"embedded", "wire", "v1"},
    {"client"},
    {"aio", "cluster"},
    {"__init__"},
    {"integrations", "shards"},
    {"ray"},
    {"cli"},
    {"__main__"},
]
NEIGHBOURS = {  # on one floor
    ("wire", "v1"),  # the first is made for the second
    ("aio", "cluster"),  # whose calls it runs in threads
    ("filters", "validate"),  # the bounds and short texts of messages, in validate/common.py
}
OUTSIDE = {"vecdb_server": "server", "vecdb_bench": "bench", "vecdb_datasets": "datasets"}  # public names only

FOLDER_FILES_MAX = 12  # files of one folder
FLAT_MODULES_MAX = 8  # modules that lie in vecdb/ itself
TEST_LINES_MAX = 600
LONG_TESTS: set[str] = set()  # not split yet
FUNCTION_LINES_MAX, KERNEL_LINES_MAX = 50, 90  # without docstring and comments before the first statement
PARAMETERS_MAX, KERNEL_PARAMETERS_MAX = 10, 14

PUBLIC = [
    "AlreadyExists",
    "Collection",
    "Corruption",
    "Curator",
    "DType",
    "Database",
    "Embedder",
    "F",
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
    "backups",
    "open",
    "promote",
    "restore",
    "upgrade",
    "warm_up",
]


# -- reading the tree ------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "v1" not in path.relative_to(folder).parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of a file; every test of this file looks at most of them."""
    return list(ast.walk(tree_of(path)))


def part_of(path: Path) -> str:
    """The top-level part of vecdb that a file belongs to: `index` for vecdb/index/flat.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, at any depth, relative names made absolute."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    package = path.relative_to(ROOT).parent.parts
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def floor_of(part: str) -> int:
    return next(floor for floor, parts in enumerate(FLOORS) if part in parts)


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


BACKEND_METHODS = {node.name for node in nodes_of(PACKAGE / "api" / "backend.py") if isinstance(node, ast.FunctionDef)}


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


# -- floors ----------------------------------------------------------------------------------------


def test_every_part_of_vecdb_stands_on_one_floor() -> None:
    known = [part for parts in FLOORS for part in parts]
    assert len(known) == len(set(known))
    assert {part_of(path) for path in VECDB_FILES} - set(known) == set(), "name its floor in FLOORS"


def test_a_package_imports_only_from_lower_floors() -> None:
    wrong = []
    for path in VECDB_FILES:
        part = part_of(path)
        for line, name in imports_of(path):
            words = name.split(".")
            if words[0] != "vecdb":
                continue
            named = words[1] if len(words) > 1 else "__init__"
            other = named if any(named in parts for parts in FLOORS) else "__init__"
            if other != part and floor_of(other) >= floor_of(part) and (part, other) not in NEIGHBOURS:
                wrong.append(f"{place(path, line)} ({part}) imports {name} ({other})")
    assert not wrong, "\n".join(wrong)


def modules() -> dict[str, Path]:
    """Dotted name -> file, of all files; a package is its __init__.py."""
    found = {}
    for path in ALL_FILES:
        base = next((ROOT / folder for name, folder in OUTSIDE.items() if name in path.parts), ROOT)
        words = path.relative_to(base).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def imported_files(path: Path, there: dict[str, Path]) -> set[Path]:
    """Files that a file imports, wherever in it the import stands: TYPE_CHECKING and functions included."""
    found = set()
    for _, name in imports_of(path):
        file = there.get(name) or there.get(name.rpartition(".")[0])
        if file is not None and file != path:
            found.add(file)
    return found


def circles(arrows: dict[Path, set[Path]]) -> list[list[Path]]:
    """Sets of files that import one another (Tarjan's strongly connected components of more than one file)."""
    index: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[Path]] = []

    def visit(node: Path) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            circle = []
            while not circle or circle[-1] != node:
                circle.append(stack.pop())
            if len(circle) > 1:
                found.append(sorted(circle))

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def test_no_files_import_one_another_in_a_circle() -> None:
    there = modules()
    arrows = {path: imported_files(path, there) for path in there.values()}
    found = [" <-> ".join(str(path.relative_to(ROOT)) for path in circle) for circle in circles(arrows)]
    assert not found, "\n".join(found)


def test_circles_are_found() -> None:
    a, b, c = Path("a"), Path("b"), Path("c")
    assert circles({a: {b}, b: {c}, c: {b}}) == [[b, c]]
    assert circles({a: {b, c}, b: {c}, c: set()}) == []


# -- sizes -----------------------------------------------------------------------------------------


def test_folders_are_small() -> None:
    folders: dict[Path, int] = {}
    for path in ALL_FILES:
        folders[path.parent] = folders.get(path.parent, 0) + 1
    wrong = {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > FOLDER_FILES_MAX}
    assert not wrong
    assert folders[PACKAGE] <= FLAT_MODULES_MAX


def test_folders_of_tests_are_small_and_so_are_their_files() -> None:
    files = files_of(ROOT / "tests")
    counts = Counter(path.parent for path in files)
    assert not {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > FOLDER_FILES_MAX}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {str(path): n for path, n in lines.items() if n > TEST_LINES_MAX and path.name not in LONG_TESTS}


def test_no_test_imports_from_another_test() -> None:
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in files_of(ROOT / "tests")
        for line, name in imports_of(path)
        if name.startswith("tests.") and any(word.startswith("test_") for word in name.split("."))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_class_name_stands_twice() -> None:
    facade = {"Collection", "Database"}  # vecdb.aio mirrors these
    expected = {"VecdbVectorStore"}  # by the users of two frameworks
    seen: dict[str, str] = {}
    wrong = []
    for path in VECDB_FILES:
        for node in nodes_of(path):
            if not isinstance(node, ast.ClassDef) or (path.name == "aio.py" and node.name in facade):
                continue
            if node.name in seen and node.name not in expected:
                wrong.append(f"{node.name}: {seen[node.name]} and {place(path, node.lineno)}")
            seen[node.name] = place(path, node.lineno)
    assert not wrong, "\n".join(wrong)


def size_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, int]:
    """(lines without the docstring, parameters without self)."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = function.end_lineno - body[0].lineno + 1 if body and function.end_lineno is not None else 0
    given = function.args
    count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    first = (given.posonlyargs + given.args)[:1]
    return lines, count - (bool(first) and first[0].arg in ("self", "cls"))


def test_functions_fit_a_screen_and_their_parameters_a_glance() -> None:
    wrong = []
    for path in VECDB_FILES:
        part = part_of(path)
        if part == "cli":  # a command is declared by its parameters
            continue
        lines_max = KERNEL_LINES_MAX if part == "kernels" else FUNCTION_LINES_MAX
        parameters_max = KERNEL_PARAMETERS_MAX if part == "kernels" else PARAMETERS_MAX
        for node in nodes_of(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines, parameters = size_of(node)
                # a public method has the parameters that users know, and the backend behind it the same
                public = part in ("api", "aio", "__init__") or node.name in BACKEND_METHODS
                if lines > lines_max or (parameters > parameters_max and not public):
                    wrong.append(f"{place(path, node.lineno)} {node.name}: {lines} lines, {parameters} parameters")
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
                and words[1:] not in ([], ["ray"], *([public] for public in PUBLIC))  # ray: a package of its own extra
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


def test_only_the_bucket_imports_obstore() -> None:
    named = {
        str(path.relative_to(ROOT))
        for path in ALL_FILES
        for node in nodes_of(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"obstore(\.\w+)*", node.value)
    }
    assert importers("obstore", ALL_FILES) == set() and named == {"vecdb/replication/bucket.py"}  # by its name, lazily


def test_only_kernels_import_numba() -> None:
    found = importers("numba", VECDB_FILES) | importers("llvmlite", VECDB_FILES)
    assert found and all(name.startswith("vecdb/kernels/") for name in found), found


def test_only_server_and_client_import_grpc() -> None:
    # the service is measured by a client without vecdb's own, and beside a server that does nothing: the ceiling
    allowed = ("vecdb/client/", "vecdb/cluster/asking/", "server/", "bench/vecdb_bench/serving/")
    found = importers("grpc", ALL_FILES)
    assert all(name.startswith(allowed) for name in found), found


def test_only_jobs_and_servers_over_ray_import_it() -> None:
    found = importers("ray", ALL_FILES)
    assert found and all(name.startswith("vecdb/ray/") for name in found), found


@pytest.mark.parametrize(
    ("framework", "homes"),
    [
        ("langchain_core", {"vecdb/integrations/langchain.py", "vecdb/integrations/langgraph.py"}),
        ("langgraph", {"vecdb/integrations/langgraph.py"}),
        ("haystack", {"vecdb/integrations/haystack.py"}),
        ("mcp", {"vecdb/integrations/mcp_server.py"}),
        ("llama_index", {"vecdb/integrations/llamaindex.py"}),
        ("uvicorn", {"vecdb/integrations/console/serving.py", "vecdb/integrations/mcp_server.py"}),
        ("jinja2", {"vecdb/integrations/console/context.py"}),
    ],
)
def test_a_framework_is_imported_by_its_adaptor_only(framework: str, homes: set[str]) -> None:
    assert importers(framework, ALL_FILES) == homes


def test_only_the_seam_to_the_os_opens_files() -> None:
    openers = {"open", "os.open", "os.fdopen", "io.open", ".read_text", ".read_bytes", ".write_text", ".write_bytes"}
    openers |= {"np.load", "np.save", "np.memmap", "np.fromfile", ".tofile"}
    # the cli writes reports and exports, never a database; the kernels read their own sources to name their cache
    excused = {PACKAGE / "storage" / "disk" / "filesystem.py", PACKAGE / "kernels" / "__init__.py"}
    wrong = [
        place(path, node.lineno)
        for path in VECDB_FILES
        if path not in excused and part_of(path) != "cli"
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and called(node) in openers
    ]
    assert not wrong, wrong


def test_nothing_unpickles_or_evaluates() -> None:
    wrong = [place(path, 0) for path in ALL_FILES for _, name in imports_of(path) if name.split(".")[0] == "pickle"]
    for path in ALL_FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and called(node) in {"eval", "exec"}:
                wrong.append(place(path, node.lineno))
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and constant(node.value) is not False:
                wrong.append(place(path, node.value.lineno))
    assert not wrong, wrong


def test_no_kernel_gives_up_nan_checks() -> None:
    wrong = []
    for path in VECDB_FILES:
        for node in nodes_of(path):
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
    assert found == {
        "connection.py: _open",
        "connection.py: _inherited",
        "connection.py: _abandoned",  # channels that nobody may delete
        "open_here.py: _open",
        "open_here.py: _locks",
    }


def test_nothing_phones_home() -> None:
    talkers = {"socket", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "smtplib", "webbrowser"}
    fetches = ROOT / "datasets/vecdb_datasets/download.py"  # when `vecdb dataset get` is asked to, and only then
    calls = {
        str(path.relative_to(ROOT))
        for path in ALL_FILES
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and called(node) == "download.get"
    }
    assert calls == {"vecdb/cli/commands/dataset.py"}
    wrong = [
        f"{place(path, line)} imports {name}"
        for path in ALL_FILES
        if path != fetches
        and not str(path.relative_to(ROOT)).startswith(("vecdb/client/", "server/", "vecdb/shards/servers/ports.py"))
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
        for path in [
            *ALL_FILES,
            ROOT / "ARCHITECTURE.md",
            ROOT / "README.md",
            ROOT / "GUIDE.md",
            ROOT / "server" / "README.md",
        ]
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
    heavy = {"numba", "llvmlite", "lmdb", "numpy", "msgspec", "typer", "rich", "grpc", "starlette", "jinja2", "uvicorn"}
    code = f"import sys; {statement}; print(*sorted(m for m in sys.modules if m in {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_commands_are_there_before_the_engine_is_loaded() -> None:
    """Half a second of every command, of which those that ask a server, or only tell of themselves, need nothing."""
    code = "import sys, vecdb.cli.app; print(*sorted({'numba', 'llvmlite', 'grpc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
