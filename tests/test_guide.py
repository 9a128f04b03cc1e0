"""GUIDE.md tells the truth: the Python of each section runs as a program, where what it imports is installed."""

from __future__ import annotations

import ast
import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "GUIDE.md").read_text(encoding="utf-8")
SECTIONS = {
    text.partition("\n")[0]: "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for text in re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]
}


def missing(program: str) -> list[str]:
    """Packages that a program imports and that are not here."""
    names = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if find_spec(name) is None)


@pytest.mark.parametrize("title", [title for title, program in SECTIONS.items() if program])
def test_the_program_of_a_section_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = SECTIONS[title]
    if lacking := missing(program):
        pytest.skip(f"without {', '.join(lacking)}")
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file), run_name="__main__")


def test_every_extra_that_it_names_is_there() -> None:
    named = set(re.findall(r"vecdb-engine\[([\w,]+)\]", GUIDE))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert named and all(re.search(rf"^{one} = \[", project, re.MULTILINE) for each in named for one in each.split(","))
