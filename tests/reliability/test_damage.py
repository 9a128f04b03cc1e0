"""Goal: damage to any file gives the same answers or a typed error, never a hang and never a wrong answer in silence.

One flipped bit, a truncation, two pages swapped, a page of an older day; each in a child on a copy of its own.
LMDB's pages carry no
checksum: where a key or value of it changes, `check` must find what answers cannot know, and a page structure
so damaged that the
process dies is counted, printed, and bounded.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import harness
from tests.reliability.harness import ForkServer

PAGE = 4096
ROWS, LMDB, MANIFEST = "collections/00000001/rows.0", "lmdb/data.mdb", "manifest.json"
DEATHS_SHARE_MAX = 0.25  # of the wounds of LMDB's file
Wound = dict[str, Any]
# Each wound of a file that is built again takes 0.4 s of processor time: the fast tier draws fewer places, the slow one
# more, and a thousand of each file.
SAMPLES = pytest.mark.parametrize("most", [8, pytest.param(20, marks=pytest.mark.slow)])


@pytest.fixture(
    scope="module",
    params=["auto", "spann-disk", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("spann", "curator"))],
)
def sound(server: ForkServer, request: pytest.FixtureRequest) -> Iterator[tuple[Path, list[str]]]:
    """A sound database and the paths of the files of its sealed index inside it."""
    with harness.fast_folder() as folder:
        status, found = server.call("sound", path=str(folder / "db"), index=request.param)
        assert status == 0, found
        yield folder / "db", [f"collections/00000001/{name}" for name in found["sealed"]]


def run(server: ForkServer, folder: Path, path: Path, wounds: list[Wound]) -> list[tuple[Wound, str, str]]:
    """(wound, outcome, text) of each, whatever becomes of the children."""
    for at, wound in enumerate(wounds):
        wound.update(at=at, read_only=bool(at % 3 == 0))
    out: dict[int, tuple[str, str]] = {}
    progress = folder / "progress"
    progress.unlink(missing_ok=True)
    (folder / "work").mkdir(exist_ok=True)
    while len(out) < len(wounds):
        left = [wound for wound in wounds if wound["at"] not in out]
        status, text = server.call(
            "hurt", path=str(path), work=str(folder / "work"), wounds=left[:50], progress=str(progress)
        )
        lines = [json.loads(line) for line in progress.read_text().splitlines()]
        for line in lines:
            if "end" in line:
                out[line["end"]] = (line["outcome"], line["text"])
        last = lines[-1]
        if status != 0:
            assert "begin" in last, f"the child failed outside a wound: {text}"
            fate = "hung" if status == -999 else "died" if status < 0 else "wrong"
            out[last["begin"]] = (fate, f"status {status}: {str(text)[-400:]}")
    found = [(wound, *out[wound["at"]]) for wound in wounds]
    counts = Counter(
        (wound["file"].split("/")[-1].split(".")[0], wound["kind"], outcome) for wound, outcome, _ in found
    )
    print("damage:", dict(sorted(counts.items())))
    return found


def judge_derived(found: list[tuple[Wound, str, str]]) -> None:
    """Of a file that can be built again: no answer changes, nothing is raised, and `optimize` makes it whole."""
    judge(found, may={"same"})


def derived(wounds: list[Wound]) -> list[Wound]:
    for wound in wounds:
        wound["derived"] = True
    return wounds


def judge(found: list[tuple[Wound, str, str]], *, may: set[str]) -> None:
    bad = [(wound, outcome, text) for wound, outcome, text in found if outcome not in may]
    assert not bad, f"{len(bad)} of {len(found)}: " + "\n".join(map(str, bad[:8]))


def flips(rng: random.Random, path: Path, file: str, count: int, stop: int | None = None) -> list[Wound]:
    size = min((path / file).stat().st_size, stop or 1 << 60)
    # a flip in one of LMDB's two meta records can turn it back to the commit before, as an older page does (below)
    begin = 2 * PAGE if file == LMDB else 0
    return [
        {"file": file, "kind": "flip", "offset": rng.randrange(begin, size), "bit": rng.randrange(8)}
        for _ in range(count)
    ]


def used_bytes(path: Path) -> int:
    """Of LMDB's file: up to its last page."""
    head = (path / LMDB).read_bytes()[: 2 * PAGE]
    return PAGE * (1 + max(int.from_bytes(head[page + 136 : page + 144], "little") for page in (0, PAGE)))


def judge_lmdb(found: list[tuple[Wound, str, str]]) -> None:
    judge(found, may={"same", "typed", "found", "died"})
    died = [wound for wound, outcome, _ in found if outcome == "died"]
    print(f"processes ended by damage to LMDB's structure: {len(died)} of {len(found)}")
    assert len(died) <= DEATHS_SHARE_MAX * len(found)


def test_a_flipped_bit_in_our_own_files_is_harmless_or_loud(
    server: ForkServer, folder: Path, sound: tuple[Path, list[str]], seed: int
) -> None:
    rng, (path, sealed) = random.Random(seed), sound
    wounds = flips(rng, path, ROWS, 50) + flips(rng, path, MANIFEST, 20)
    judge(run(server, folder, path, wounds if len(sealed) == 1 else wounds[:4]), may={"same", "typed"})
    count = 12 if len(sealed) == 1 else 3
    judge_derived(run(server, folder, path, derived([w for file in sealed for w in flips(rng, path, file, count)])))


@SAMPLES
@pytest.mark.parametrize("sound", ["auto"], indirect=True)
def test_a_flipped_bit_in_lmdb_is_harmless_loud_or_found_by_check(
    server: ForkServer, folder: Path, sound: tuple[Path, list[str]], seed: int, most: int
) -> None:
    path, _ = sound
    judge_lmdb(run(server, folder, path, flips(random.Random(seed), path, LMDB, 5 * most, used_bytes(path))))


@pytest.mark.slow
def test_a_thousand_flipped_bits_in_every_file(
    server: ForkServer, folder: Path, sound: tuple[Path, list[str]], seed: int
) -> None:
    rng, (path, sealed) = random.Random(seed), sound
    for file in (ROWS, MANIFEST):
        judge(run(server, folder, path, flips(rng, path, file, 1_000)), may={"same", "typed"})
    for file in sealed:
        judge_derived(run(server, folder, path, derived(flips(rng, path, file, 1_000))))
    judge_lmdb(run(server, folder, path, flips(rng, path, LMDB, 1_000, used_bytes(path))))


@SAMPLES
def test_a_truncated_file_is_harmless_or_loud(
    server: ForkServer, folder: Path, sound: tuple[Path, list[str]], seed: int, most: int
) -> None:
    rng, (path, sealed) = random.Random(seed), sound
    wounds: list[Wound] = []
    for file in (ROWS, *sealed, LMDB, MANIFEST) if len(sealed) == 1 else (ROWS, *sealed):
        size = (path / file).stat().st_size if file != LMDB else used_bytes(path)
        lengths = {0, 1, size - 1, size // 2, *range(PAGE, size, PAGE)}
        count = most if len(sealed) == 1 else 3
        chosen = sorted(lengths) if len(lengths) < count else rng.sample(sorted(lengths), count)
        wounds += [{"file": file, "kind": "truncate", "offset": length} for length in chosen if length < size]
    judge(run(server, folder, path, [w for w in wounds if w["file"] not in sealed]), may={"same", "typed"})
    judge_derived(run(server, folder, path, derived([w for w in wounds if w["file"] in sealed])))


def pairs(rng: random.Random, path: Path, file: str, count: int) -> list[Wound]:
    pages = ((path / file).stat().st_size if file != LMDB else used_bytes(path)) // PAGE
    return [
        {"file": file, "kind": "swap", "pages": rng.sample(range(pages), 2)} for _ in range(count if pages > 1 else 0)
    ]


def _turns_back(wound: Wound) -> bool:
    return wound.get("page") in (0, 1) or set(wound.get("pages", [9])) == {0, 1}


def older(path: Path, file: str) -> list[Wound]:
    before = Path(str(path) + ".older") / file
    if not before.exists():
        return []
    one, two = (path / file).read_bytes(), before.read_bytes()
    pages = range(min(len(one), len(two)) // PAGE)
    return [
        {"file": file, "kind": "older", "page": page}
        for page in pages
        if one[page * PAGE : (page + 1) * PAGE] != two[page * PAGE : (page + 1) * PAGE]
    ]


@SAMPLES
def test_swapped_and_older_pages_of_our_own_files_are_harmless_or_loud(
    server: ForkServer, folder: Path, sound: tuple[Path, list[str]], seed: int, most: int
) -> None:
    rng, (path, sealed) = random.Random(seed), sound
    if len(sealed) == 1:  # rows lie as they do whatever the index is
        judge(run(server, folder, path, pairs(rng, path, ROWS, 8) + older(path, ROWS)), may={"same", "typed"})
    count = most if len(sealed) == 1 else 2
    wounds = [w for file in sealed for w in pairs(rng, path, file, count) + older(path, file)]
    judge_derived(run(server, folder, path, derived(wounds)))


def every_page(server: ForkServer, folder: Path, seed: int, index: str, rebuilds: int) -> None:
    path = folder / "db"
    status, found = server.call("sound", path=str(path), index=index)
    assert status == 0, found
    status, found = server.call("flip_every_page", path=str(path), seed=seed, rebuilds=rebuilds)
    assert status == 0, found
    print(f"flipped pages: {found}")
    assert found["wrong"] == []
    assert found["pages"] > 40
    assert found["noticed"] == found["used"], "a bit of a page in use was flipped and nobody noticed"
    assert found["rebuilt"] >= min(rebuilds, found["pages"])


@pytest.mark.parametrize(  # slow: five seconds; the files are the same
    "index", [pytest.param("spann", marks=pytest.mark.slow), "spann-disk"]
)
def test_a_flipped_bit_in_each_page_of_a_list_file_changes_no_answer(
    server: ForkServer, folder: Path, seed: int, index: str
) -> None:
    every_page(server, folder, seed, index, 2)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["spann", "spann-disk"])
def test_a_flipped_bit_in_each_page_of_a_list_file_is_mended(
    server: ForkServer, folder: Path, seed: int, index: str
) -> None:
    every_page(server, folder, seed, index, 10_000)


@pytest.mark.parametrize("sound", ["auto"], indirect=True)
def test_swapped_and_older_pages_of_lmdb_are_harmless_loud_or_found_by_check(
    server: ForkServer, folder: Path, sound: tuple[Path, list[str]], seed: int
) -> None:
    rng, (path, _) = random.Random(seed), sound
    wounds = pairs(rng, path, LMDB, 30) + older(path, LMDB)
    found = run(server, folder, path, wounds)
    # a meta page of an older day makes LMDB take the other one, the database of one commit before: COMMITTED tells
    turned = [one for one in found if _turns_back(one[0])]
    assert turned
    judge(turned, may={"same", "typed"})
    judge([one for one in found if not _turns_back(one[0])], may={"same", "typed", "found", "died"})
