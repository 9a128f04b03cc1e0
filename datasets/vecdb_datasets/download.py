"""Standard data sets from their public addresses: fetched once, checked, resumed where they were interrupted.

    FOLDER/NAME.hdf5            the set
    FOLDER/NAME.hdf5.sha256     its SHA-256, as `sha256sum -c` reads it
    FOLDER/NAME.hdf5.part       what has come so far; .part.tag: which version of the file that is of

Of several that fetch one set at once, in threads or processes, one does, and the others wait: .part is locked.
An https address is not left for another kind of address, whatever a server says.
A file is checked against the SHA-256 that the caller gives, or else the digest that the server sends with it, or else
its length alone: ann-benchmarks publishes none. The digest is noted all the same, so that others can compare.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vecdb import Corruption, InvalidArgument, NotFound, Unavailable

from . import truth_cache

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None] | None
ANN_BENCHMARKS = "https://ann-benchmarks.com"
VIBE = "https://huggingface.co/datasets/vector-index-bench/vibe/resolve/main"
_ANN_BENCHMARKS_SETS = (
    "deep-image-96-angular fashion-mnist-784-euclidean gist-960-euclidean glove-25-angular glove-50-angular "
    "glove-100-angular glove-200-angular mnist-784-euclidean nytimes-256-angular sift-128-euclidean"
)
_VIBE_SETS = (
    "agnews-mxbai-1024-euclidean arxiv-nomic-768-normalized ccnews-nomic-768-normalized "
    "celeba-resnet-2048-cosine coco-nomic-768-normalized codesearchnet-jina-768-cosine dpr-jina-768-normalized "
    "glove-200-cosine gooaq-distilroberta-768-normalized hotpotqa-harrier-640-normalized "
    "imagenet-align-640-normalized imagenet-clip-512-normalized inaturalist-resnet-2048-cosine "
    "laion-clip-512-normalized landmark-dino-768-cosine landmark-nomic-768-normalized llama-128-ip "
    "msmarco-qwen-1024-normalized simplewiki-openai-3072-normalized yahoo-minilm-384-normalized "
    "yandex-200-cosine yi-128-ip"
)
ADDRESSES: dict[str, str] = {
    **dict.fromkeys(_ANN_BENCHMARKS_SETS.split(), ANN_BENCHMARKS),
    **dict.fromkeys(_VIBE_SETS.split(), VIBE),
}
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60.0


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/vecdb/datasets, or ~/.cache/vecdb/datasets."""
    return truth_cache.cache_folder("datasets")


def downloaded(name: str, folder: PathLike | None = None) -> Path | None:
    """The file of a set that was fetched; None where it was not."""
    path = Path(folder if folder is not None else cache_folder()) / f"{name}.hdf5"
    return path if name in ADDRESSES and path.is_file() else None


def get(
    name: str,
    folder: PathLike | None = None,
    *,
    sha256: str | None = None,
    base_url: str | None = None,
    progress: Progress = None,
) -> Path:
    """Fetch a standard data set, unless it is here already. An interrupted call goes on where it was.

    Parameters
    ----------
    name : one of `ADDRESSES`.
    folder : where to; `cache_folder()` when None.
    sha256 : what it must have; a file that is here is checked, too.
    base_url : a mirror's, in the place of the public address.
    progress : called with (bytes so far, bytes in all), 0 for what is not known.

    Raises
    ------
    NotFound
        No such name, or the server has no such file.
    Unavailable
        The folder cannot be written, the server cannot be reached, or the connection ended early: the message says
        what to do without a network.
    Corruption
        The digest is another. What came is removed.
    """
    if name not in ADDRESSES:
        raise NotFound(f"no standard data set {name!r}; there are: {', '.join(sorted(ADDRESSES))}")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InvalidArgument(f"sha256 {sha256!r}: expected 64 digits from 0 to f")
    path = Path(folder if folder is not None else cache_folder()) / f"{name}.hdf5"
    if path.is_file():
        if sha256 is not None and _digest(path, "sha256") != sha256:
            raise Corruption(f"{path} has another SHA-256 than {sha256}: remove it to fetch it again")
        return path
    url = f"{(base_url or ADDRESSES[name]).rstrip('/')}/{name}.hdf5"
    part = path.with_name(f"{path.name}.part")
    with _locked(part):
        if not path.is_file():
            _fetch_whole(url, part, path, sha256, progress)
            return path
    return get(name, folder, sha256=sha256)  # another call fetched it meanwhile


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Nobody else fetches this file meanwhile. One that is still empty at the end is removed."""
    while True:
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            file = open(part, "ab")  # noqa: SIM115 - closed below
        except OSError as error:
            raise Unavailable(f"{part} cannot be written ({error.strerror}): name another folder") from error
        with file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, part):  # whoever had the lock has renamed or removed it
                continue
            try:
                yield
            finally:
                if _is_at(file, part) and not part.stat().st_size:
                    part.unlink()
            return


def _is_at(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch_whole(url: str, part: Path, path: Path, sha256: str | None, progress: Progress) -> None:
    """Bring a file, check it and put it in its place."""
    try:
        promised = _fetch(url, part, progress)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise NotFound(f"{url}: the server has no such file") from error
        raise _unavailable(url, path, f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(url, path, str(getattr(error, "reason", error)) or type(error).__name__) from error
    found = _digest(part, "sha256")
    if sha256 is not None:
        promised = ("sha256", sha256)
    if promised is not None and (found if promised[0] == "sha256" else _digest(part, promised[0])) != promised[1]:
        part.unlink()
        raise Corruption(
            f"{url}: what came has another {promised[0]} than {promised[1]}: it is removed, fetch it again"
        )
    path.with_name(f"{path.name}.sha256").write_text(f"{found}  {path.name}\n", encoding="ascii")
    part.rename(path)
    _tag_file(part).unlink(missing_ok=True)


def _fetch(url: str, part: Path, progress: Progress) -> tuple[str, str] | None:
    """Bring the rest of a file. Returns (name of a digest, the digest) where the server tells one."""
    known = _tag_file(part).read_text(encoding="utf-8") if _tag_file(part).exists() else ""
    have = part.stat().st_size if part.exists() and known else 0
    headers = {"User-Agent": "vecdb"} | ({"Range": f"bytes={have}-", "If-Range": known} if have else {})
    with _answer(urllib.request.Request(url, headers=headers), part, have) as (answer, linked):
        if answer is None:  # all of it is here
            return linked
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        goes_on = answer.status == 206
        if goes_on and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            _tag_file(part).unlink()  # the next call begins anew
            raise ConnectionError(f"asked for what follows byte {have:,}, the server sends another part")
        length = answer.headers.get("Content-Length") or ""
        total = int(length) + (have if goes_on else 0) if re.fullmatch("[0-9]{1,18}", length) else 0
        _tag_file(part).write_text("" if tag.startswith("W/") else tag, encoding="utf-8")
        done = have if goes_on else 0
        with open(part, "ab" if goes_on else "wb") as out:
            while block := answer.read(_BLOCK_BYTES):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
        done = part.stat().st_size
        if total and done != total:
            raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
        return linked or _digest_of_tag(tag)


@contextmanager
def _answer(request: urllib.request.Request, part: Path, have: int) -> Iterator[tuple[Any, tuple[str, str] | None]]:
    """The server's answer, None where it says that there is no more to send; and the digest that a redirect told."""
    redirects = _Redirects()
    try:
        with urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_S) as answer:
            yield answer, _digest_of_tag(redirects.linked)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        total = (error.headers.get("Content-Range") or "").removeprefix("bytes */")
        if total != str(have):
            _tag_file(part).unlink()  # the next call begins anew
            raise ConnectionError(f"{have:,} bytes are here, the server has {total or 'not said how many'}") from error
        yield None, _digest_of_tag(redirects.linked or error.headers.get("ETag") or "")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the digest that the first address tells of the file."""

    linked = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(req.full_url).scheme == "https" != urllib.parse.urlsplit(newurl).scheme:
            raise urllib.error.URLError(f"the server leads from https to {newurl[:200]!r}, which is not followed")
        self.linked = self.linked or headers.get("X-Linked-ETag") or ""
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _digest_of_tag(tag: str) -> tuple[str, str] | None:
    """A tag of 64 digits is a SHA-256, one of 32 an MD5, as stores of files make them."""
    digits = re.fullmatch('"?([0-9a-f]{32}|[0-9a-f]{64})"?', tag)
    return None if digits is None else ("sha256" if len(digits[1]) == 64 else "md5", digits[1])


def _digest(path: Path, name: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _unavailable(url: str, path: Path, why: str) -> Unavailable:
    return Unavailable(
        f"{url} cannot be fetched: {why}. The same command goes on where this one was; without a network, fetch the "
        f"file on another machine and put it at {path}, or name a mirror"
    )
