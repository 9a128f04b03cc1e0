"""README's figures and plots are made of the kept results; a kept result names no host or folder."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb.shards.sizing import Measured
from vecdb_bench.disk import SCRIPTS
from vecdb_bench.figures import kept, page, plots, style
from vecdb_bench.figures.tables import PARTS, Results, rate, table
from vecdb_bench.filters.plan import PEERS as FILTER_PEERS
from vecdb_bench.peers import PEERS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "bench" / "results"
FILES = sorted(FOLDER.glob("*.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
drawn = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra [bench]")


# -- what is committed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_kept_result_loads_and_says_how_it_was_measured_but_not_who_by(file: Path) -> None:
    one = kept.read(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", one.date) and one.command.startswith("vecdb bench ")
    assert one.commit and one.machine["processor"] and one.machine["cores"] > 0 and any(one.rows.values())
    assert set(one.machine) <= set(kept.MACHINE)
    assert one.kernels or "measured before" in one.how
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|tmp|work|mnt|usr|var|opt)\b", text)


def test_the_parts_of_the_page_are_made_of_the_kept_results() -> None:
    assert {name for _, name, _ in page.PART.findall(README)} == set(PARTS)
    assert page.written(README, Results(FOLDER)) == README, "run `vecdb bench figures`"


def test_no_figure_of_the_comparison_is_written_by_hand() -> None:
    """Between the made parts there is no table, and no number."""
    section = README.partition("## How it compares\n")[2].partition("\n## ")[0]
    words = re.sub(r"`[^`]*`|<picture>.*?</picture>", "", page.unmade(section), flags=re.DOTALL)
    assert len(words) > 500 and "|" not in words
    assert not re.findall(r".*\d.*", words.replace("8-bit", ""))


@drawn
def test_the_plots_are_those_of_the_kept_results(tmp_path: Path) -> None:
    """The same bytes with the version of matplotlib that drew them, and the same points in words with any other."""
    import matplotlib

    for name, (draw, height) in page.drawings(Results(FOLDER)).items():
        for file in style.save(draw, tmp_path / name, height):
            there = (ROOT / "bench" / "plots" / file.name).read_text(encoding="utf-8")
            made = file.read_text(encoding="utf-8")
            assert description(made) == description(there), f"{file.name}: run `vecdb bench figures`"
            if f"Matplotlib v{matplotlib.__version__}," in there:
                assert made == there, f"{file.name}: run `vecdb bench figures`"
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in (ROOT / "bench" / "plots").iterdir()}


def description(svg: str) -> str:
    (found,) = re.findall(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)
    return str(found)


def test_every_plot_is_on_the_page_for_light_and_for_dark() -> None:
    for file in (ROOT / "bench" / "plots").iterdir():
        assert f"bench/plots/{file.name}" in README


def test_what_a_cluster_takes_is_calculated_from_kept_results() -> None:
    found, results = Measured(), Results(FOLDER)
    (spann,) = [
        1e3 / row["mean_ms"] for row in results["disk-sift"].rows["points"]
        if (row["peer"], row["recall"]) == ("vecdb", 0.95)
    ]  # fmt: skip
    (graph,) = [
        row["rate"] for row in results["threads-16-cores"].rows["calls"]
        if (row["way"], row["tree"], row["count"]) == ("threads", "this", 1)
    ]  # fmt: skip
    assert found.spann_rate == pytest.approx(spann, 1e-5) and found.hnsw_rate == graph
    assert round(1 / found.call_s) == results["workers-16-cores"].rows["rates"][0]["rate"]


# -- how it is made --------------------------------------------------------------------------------------


def test_a_result_is_kept_without_folders_and_with_few_digits(tmp_path: Path) -> None:
    command = "vecdb bench disk --dataset /data/in/sift.u8bin --peers x=/v/bin/python3 --path /d"
    one = kept.of_result(result(), command, "c0")
    assert one.command == "vecdb bench disk --dataset sift.u8bin --peers x=PYTHON"
    assert one.plan == {"dataset": "sift.u8bin", "rows": 10} and one.versions == {"numpy": "2", "x": "1.5"}
    assert one.rows["points"] == [{"peer": "vecdb", "recall": 0.91235, "mean_ms": 0.12346}]
    assert one.rows["builds"] == [{"peer": "x", "memory_bytes": 7, "seconds": 1.0, "disk_bytes": 9}]
    assert one.machine == {"system": "Linux 6.1", "processor": "P", "cores": 2, "load": [1, 2, 3]}
    assert one.date == "2026-01-02" and one.how == ""
    kept.write(one, tmp_path / "a" / "b.json")
    assert kept.read(tmp_path / "a" / "b.json") == one
    assert json.loads((tmp_path / "a" / "b.json").read_text())["rows"]["points"][0]["recall"] == 0.91235


def result() -> dict[str, Any]:
    machine = {"when": "2026-01-02T03:04:05+00:00", "system": "Linux 6.1.7-mine", "processor": "P", "cores": 2}
    machine |= {"kernels": "k", "load": [1, 2, 3], "environment": {"OMP_NUM_THREADS": "1"}}
    return {
        "benchmark": "disk",
        "plan": {"dataset": "/data/in/sift.u8bin", "rows": 10, "path": "/d"},
        "machine": machine | {"versions": {"numpy": "2", "usearch": None}},
        "points": [{"peer": "vecdb", "recall": 0.912345678, "mean_ms": 0.123456789}],
        "builds": {"x": {"seconds": 1.0, "disk_bytes": 9, "version": "1.5"}},
        "memory": {"x": 7},
        "disk": {"reads": 1.0},
    }


def test_what_is_no_result_is_refused_by_name(tmp_path: Path) -> None:
    for wrong in ({}, {"machine": 1}, result() | {"memory": {}}):
        with pytest.raises(vecdb.InvalidArgument, match="no result of `vecdb bench`"):
            kept.of_result(wrong, "vecdb bench disk", "c0")
    for text in ("", "{}", '{"format": 1}', "\xff"):
        (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(vecdb.InvalidArgument, match=r"a\.json is no kept result"):
            kept.read(tmp_path / "a.json")
    kept.write(kept.of_result(result(), "vecdb bench disk", "c0"), tmp_path / "b.json")
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(vecdb.InvalidArgument, match="format 2"):
        kept.read(tmp_path / "b.json")
    with pytest.raises(vecdb.NotFound, match="vecdb bench keep"):
        Results(tmp_path)["nothing"]


def test_the_commands_keep_a_result_and_refuse_what_is_no_checkout(tmp_path: Path) -> None:
    file = tmp_path / "disk.json"
    file.write_text(json.dumps(result()))
    words = ["bench", "keep", str(file), "one", "--commit", "c0", "--root", str(tmp_path)]
    asked = CommandRunner().run(words)
    assert asked.exit_code != 0 and "--command" in asked.output
    done = CommandRunner().run([*words, "--command", "vecdb bench disk"])
    assert done.exit_code == 0 and kept.read(tmp_path / "bench" / "results" / "one.json").commit == "c0"
    file.write_text("[]")
    assert "no result" in CommandRunner().run(words).output
    figures = CommandRunner().run(["bench", "figures", "--root", str(tmp_path)])
    assert figures.exit_code != 0 and "no checkout" in figures.output


@drawn
def test_the_command_makes_what_is_missing_and_then_nothing(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "results").symlink_to(FOLDER)
    (tmp_path / "README.md").write_text(page.PART.sub(r"\1\3", README), encoding="utf-8")
    assert (tmp_path / "README.md").read_text() != README
    assert len(page.make(tmp_path)) == 1 + 2 * len(page.drawings(Results(FOLDER)))
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == README
    assert page.make(tmp_path) == []
    (tmp_path / "README.md").write_text("<!-- made by vecdb bench figures: nobody -->\n\n<!-- end -->")
    with pytest.raises(vecdb.InvalidArgument, match="nobody"):
        page.make(tmp_path)


def test_a_table_is_markdown_and_a_rate_is_that_of_the_points_asked_for() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
    points = [{"peer": "x", "recall": 0.9, "rate": 10.0}, {"peer": "y", "recall": 0.9, "mean_ms": 4.0}]
    assert rate(points, 0.9, peer="x") == 10 and rate(points, 0.9, peer="y") == 250
    assert rate(points, 0.95, peer="x") is None


def test_names_lie_apart_in_order_and_inside() -> None:
    assert style.spread([5.0, 50.0, 90.0], 10, 0, 100) == [5, 50, 90]
    assert style.spread([50.0, 50.0], 10, 0, 100) == [55, 45] or style.spread([50.0, 50.0], 10, 0, 100) == [45, 55]
    for values in ([1.0, 2.0, 3.0, 99.0], [98.0, 97.0, 1.0], [float(at % 7) for at in range(9)], [-5.0, 120.0]):
        found = style.spread(values, 10, 0, 100)
        order = sorted(range(len(values)), key=lambda at: values[at])
        assert all(found[b] - found[a] >= 10 - 1e-9 for a, b in itertools.pairwise(order))
        assert min(found) >= 0 and max(found) <= 100
    assert style.spread([], 10, 0, 100) == []


def test_names_are_read_on_either_ground_by_who_sees_no_colour() -> None:
    for theme in style.THEMES:
        for name, line in style.LINES.items():
            assert contrast(line.color(theme), theme.ground) >= 4.5, (theme.name, name)
        assert contrast(theme.ink, theme.ground) >= 7
    for together in (
        {*PEERS} - {"vecdb-f32"},
        SCRIPTS,
        {"vecdb", "vecdb, new filters", "vecdb, default", *FILTER_PEERS},
    ):
        looks = {(style.line_of(name).marker, str(style.line_of(name).dashes)) for name in together}
        assert len(looks) == len(together), together
    assert style.line_of("somebody").label == "somebody"


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


POINTS = [
    {"peer": peer, "recall": recall, "rate": rate}
    for peer, factor in (("vecdb", 3), ("hnswlib", 1))
    for recall, rate in ((0.5, 9e3 * factor), (0.9, 5e3 * factor), (0.95, 4e3 * factor), (1.0, 9e2 * factor))
]


@drawn
def test_a_plot_has_the_points_and_says_them(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5))
    worse = [{"peer": "vecdb", "recall": 0.9, "rate": 1.0}]
    said = plots.recall_against_rate({"": POINTS + worse}, "T", "cpu")(figure, style.THEMES[0])
    lines = {line.get_gid(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert lines == {"line of hnswlib": [5_000, 4_000, 900], "line of vecdb": [15_000, 12_000, 2_700]}
    assert "vecdb: 1.5e+04 at 0.9, 1.2e+04 at 0.95, 2,700 at 1" in said
    style.save_one(plots.recall_against_rate({"a": POINTS, "b": []}, "T", "wall"), tmp_path / "x.png", 500)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
