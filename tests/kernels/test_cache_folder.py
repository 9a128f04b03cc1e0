"""Goal: machine code is kept where its user alone may write, and never in the working directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vecdb import kernels


def test_a_user_without_a_home_keeps_kernels_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does without HOME and without an account
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    folder = Path(kernels._cache_folder())
    assert folder.is_relative_to(tmp_path / "tmp") and folder.stat().st_mode & 0o077 == 0
    assert os.listdir(tmp_path / "here") == []


def test_the_cache_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Path(kernels._cache_folder()).is_relative_to(tmp_path / ".cache" / "vecdb")


def test_a_cache_folder_is_enough_where_there_is_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose root is read-only and whose XDG_CACHE_HOME is a volume."""

    def none(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(kernels.tempfile, "gettempdir", none)
    monkeypatch.setattr(kernels.tempfile, "mkdtemp", none)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Path(kernels._cache_folder()).is_relative_to(tmp_path / "vecdb")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(FileNotFoundError, match="set XDG_CACHE_HOME or TMPDIR"):
        kernels._cache_folder()
