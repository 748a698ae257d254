"""Writing and reading a package: the same bytes for the same files, and an index that lists every one of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package import archive
from dlx_deploy.runtime.package.archive import parse_archive, read_archive, write_archive

from .zips import DEFLATED, FILES, STORED, indexed, written, zipped


@pytest.mark.parametrize("deflate", [False, True])
def test_round_trip(tmp_path: Path, deflate: bool) -> None:
    path = tmp_path / "x.dlx"
    write_archive(path, FILES, deflate)
    assert read_archive(path) == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["x.dlx"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@given(st.dictionaries(st.from_regex(r"[a-zA-Z0-9_]{1,9}(/[a-zA-Z0-9_]{1,9}){0,2}", fullmatch=True), st.binary()))
def test_round_trip_of_any_files(files: dict[str, bytes]) -> None:
    files = indexed(files)
    assert parse_archive(written(files=files), "x.dlx") == files


def test_same_files_same_bytes_in_any_order() -> None:
    assert written(files=dict(sorted(FILES.items()))) == written(files=dict(sorted(FILES.items(), reverse=True)))


def test_layout_is_fixed() -> None:
    """The bytes depend on nothing but the files: a change of this digest is a change of the format."""
    infos = zipfile.ZipFile(io.BytesIO(STORED)).infolist()
    assert [i.filename for i in infos] == ["package.json", "dlx_runtime/main.py", "empty", "model.onnx"]
    assert {(i.date_time, i.compress_type, i.create_system, i.external_attr >> 16) for i in infos} == {
        ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 3, 0o100644)
    }
    golden = hashlib.sha256(STORED).hexdigest()
    assert golden == "37baed6c47551f685ecec9aa0c4ffe4afaff7c6c5b07501ed7ed496ba7756c4f"


def test_deflate_is_smaller() -> None:
    assert len(DEFLATED) < len(STORED)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.dlx"
    write_archive(path, FILES)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_archive(path, indexed({"other": b"1"}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.dlx"]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"x\.dlx: no such file; give the path of a \.dlx package"):
        read_archive(tmp_path / "x.dlx")
    with pytest.raises(PackageError, match="cannot be read"):
        read_archive(tmp_path)


def test_tampered_with_and_zipped_again() -> None:
    same_size = {**FILES, "model.onnx": bytes(512)}
    with pytest.raises(PackageError, match=r"'model\.onnx' has SHA-256 \w{64}, package\.json says '\w{64}'; tampered"):
        parse_archive(zipped(list(same_size.items())), "x.dlx")
    longer = {**FILES, "model.onnx": bytes(513)}
    with pytest.raises(PackageError, match=r"'model\.onnx' has 513 bytes, package\.json says 512; tampered"):
        parse_archive(zipped(list(longer.items())), "x.dlx")


def test_extra_and_missing_members() -> None:
    with pytest.raises(PackageError, match=r"'extra\.py' is not listed in package\.json"):
        parse_archive(zipped([*FILES.items(), ("extra.py", b"")]), "x.dlx")
    fewer = [(n, d) for n, d in FILES.items() if n != "empty"]
    with pytest.raises(PackageError, match=r"'empty' is listed in package\.json but missing"):
        parse_archive(zipped(fewer), "x.dlx")


def test_foreign_zip() -> None:
    with pytest.raises(PackageError, match=r"a zip without package\.json, so no dlx package"):
        parse_archive(zipped([("word/document.xml", b"<x/>")]), "x.dlx")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", r"package\.json is not JSON"),
        (b"\xff", r"package\.json is not JSON"),
        (b"[" * 100_000, r"package\.json is not JSON|claim to hold"),
        (b"[]", "schema is None; must be a whole number"),
        (b'{"schema": true}', "schema is True; must be a whole number"),
        (b'{"schema": "1"}', "schema is '1'; must be a whole number"),
        (b'{"schema": 0}', "schema is 0; must be a whole number"),
        (b'{"schema": 1}', "files is None; must be a table"),
        (b'{"schema": 1, "files": ["x"]}', r"files is \['x'\]; must be a table"),
    ],
)
def test_malformed_index(index: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        parse_archive(zipped([("package.json", index)]), "x.dlx")


def test_malformed_entry() -> None:
    index = b'{"schema": 1, "files": {"a": 3}}'
    with pytest.raises(PackageError, match=r"'a' has 1 bytes, package\.json says None"):
        parse_archive(zipped([("package.json", index), ("a", b"1")]), "x.dlx")


def test_newer_schema_is_refused_by_name() -> None:
    newer = json.dumps({"schema": 7, "files": "in another form"}).encode()
    with pytest.raises(
        PackageError, match=r"schema is 7; this version reads up to 4; use a newer dlx-deploy, or .* python x\.dlx"
    ) as e:
        parse_archive(zipped([("package.json", newer)]), "some/where/x.dlx")
    assert e.value.exit_code == 2


UNSAFE = ["../x", "a/../../x", "/etc/x", "a//b", "C:/x", "a\\b", "./x", "a/.", "..", "a/", "x y", "ü", "a\n"]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="unsafe member name"):
        parse_archive(zipped([*FILES.items(), (name, b"")]), "x.dlx")
    with pytest.raises(PackageError, match="unsafe member name"):
        write_archive(tmp_path / "x.dlx", {**FILES, name: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..a", "a..", "...", ".hidden/x", "a/..b/c"])
def test_names_with_dots_that_are_safe(name: str) -> None:
    files = indexed({name: b"1"})
    assert parse_archive(zipped(list(files.items())), "x.dlx") == files


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.dlx"
    with contextlib.ExitStack() as stack:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            monkeypatch.chdir(tmp_path)  # the name of a socket is short
            server.bind("x.dlx")
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(PackageError, match=r"read \((a \w+; must be a plain file|No such device|Is a dir)"):
            read_archive(path)


@pytest.mark.parametrize("schema", [-1, 1.0, 5])
def test_only_schemas_that_are_known(schema: Any) -> None:
    with pytest.raises(PackageError, match="schema is 5; " if schema == 5 else "must be a whole number from 1"):
        archive.read_index("x.dlx", archive.to_json({"schema": schema, "files": {}}))


def test_the_index_is_canonical() -> None:
    assert archive.to_json({"b": [1], "a": "ü"}) == '{\n "a": "ü",\n "b": [\n  1\n ]\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        archive.to_json({"a": float("nan")})


def test_a_package_is_written_beside_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same folder, or the last step would be no rename: and whole, and on the disk, before it."""
    seen: list[tuple[str, str, bytes]] = []
    replace, synced = os.replace, []

    def watch(source: str, target: str) -> None:
        seen.append((os.path.dirname(source), os.path.basename(source)[:7], Path(source).read_bytes()))
        assert synced == [len(STORED)]
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    monkeypatch.chdir(tmp_path)
    write_archive("x.dlx", FILES)
    assert seen == [(str(tmp_path), ".x.dlx.", STORED)]


def test_deflate_is_as_small_as_zlib_makes_it() -> None:
    data = b"".join(b"%d %d\n" % (i * i % 977, i % 13) for i in range(4000))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    best = packer.compress(data) + packer.flush()
    assert best in written(deflate=True, files={"a": data})
