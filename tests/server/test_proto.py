"""The contract: stubs say what the protos say, the linter is content, and what was released can still be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from vecdb.v1 import admin_pb2, collections_pb2, common_pb2, records_pb2, search_pb2, tenants_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
STUBS = (admin_pb2, collections_pb2, common_pb2, records_pb2, search_pb2, tenants_pb2)


def buf(*words: str) -> subprocess.CompletedProcess[bytes]:
    found = shutil.which("buf", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    assert found is not None, "buf is among the test extra"
    return subprocess.run([found, *words], cwd=PROTO, capture_output=True, check=False, timeout=120)


def files_of(image: bytes) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """An image of buf's is a FileDescriptorSet with extensions of its own."""
    files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(image).file}
    for file in files.values():
        file.ClearField("source_code_info")
        file.DiscardUnknownFields()  # type: ignore[attr-defined]
    return files


def test_stubs_are_what_the_protos_say(tmp_path: Path) -> None:
    done = buf("build", "--as-file-descriptor-set", "-o", str(tmp_path / "image.binpb"))
    assert done.returncode == 0, done.stderr.decode()
    built = files_of((tmp_path / "image.binpb").read_bytes())
    stubs = {}
    for module in STUBS:
        stub = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(stub)
        stubs[stub.name] = stub
    assert set(stubs) == {str(path.relative_to(PROTO)) for path in (PROTO / "vecdb").rglob("*.proto")}
    for name, stub in stubs.items():
        for file in (stub, built[name]):
            _plain(file)
        assert stub == built[name], f"{name}: run `make proto`"


def _plain(file: descriptor_pb2.FileDescriptorProto) -> None:
    """json_name is filled in by some compilers and left out by others."""

    def walk(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            field.ClearField("json_name")
        for inner in message.nested_type:
            walk(inner)

    for message in file.message_type:
        walk(message)


@pytest.mark.parametrize("words", [("lint",), ("format", "--diff", "--exit-code")])
def test_the_protos_are_as_buf_wants_them(words: tuple[str, ...]) -> None:
    done = buf(*words)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def test_a_message_of_the_last_release_can_still_be_read() -> None:
    done = buf("breaking", "--against", "released.binpb")
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
