from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package import archive, unzip
from dlx_deploy.runtime.package.archive import parse_archive, read_archive, write_archive


def indexed(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """``files`` with a ``package.json`` that lists them."""
    listed = {n: {"sha256": hashlib.sha256(d).hexdigest(), "size": len(d)} for n, d in files.items()}
    return {**files, "package.json": archive.to_json({"schema": 1, "files": listed, **changes})}


def zipped(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as f:
        for name, data in members:
            f.writestr(name, data)
    return buffer.getvalue()


FILES = indexed({"model.onnx": bytes(range(256)) * 2, "dlx_runtime/main.py": b"print()\n" * 9, "empty": b""})


def written(deflate: bool = False, files: Mapping[str, bytes] = FILES) -> bytes:
    buffer: dict[str, bytes] = {}

    def keep(path: str, data: bytes, mode: int) -> None:
        buffer["data"] = data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "write_atomically", keep)
        write_archive("x.dlx", files, deflate)
    return buffer["data"]


STORED, DEFLATED = written(), written(deflate=True)


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


def test_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "x.dlx", FILES)
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(PackageError, match=r"has \d+ bytes; a package has at most 100"):
        read_archive(tmp_path / "x.dlx")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_truncated(share: float) -> None:
    with pytest.raises(PackageError, match=r"x\.dlx: not a readable zip .*cut short, damaged, or no dlx package"):
        parse_archive(STORED[: int(share * len(STORED))], "x.dlx")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([STORED, DEFLATED]), st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_is_found_or_harmless(data: bytes, position: int, mask: int) -> None:
    damaged = bytearray(data)
    damaged[position % len(data)] ^= mask
    try:
        files = parse_archive(bytes(damaged), "x.dlx")
    except PackageError:
        return
    assert files == FILES


def test_a_flipped_byte_in_a_member_names_it() -> None:
    position = STORED.index(FILES["model.onnx"]) + 100
    damaged = bytearray(STORED)
    damaged[position] ^= 1
    with pytest.raises(PackageError, match=r"member 'model\.onnx' is damaged \(Bad CRC-32"):
        parse_archive(bytes(damaged), "x.dlx")


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"PK\x05\x06" + bytes(18))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PackageError):
        parse_archive(data, "x.dlx")


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
        PackageError, match=r"schema is 7; this version reads up to 2; use a newer dlx-deploy, or .* python x\.dlx"
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


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files(kind: int) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (kind | 0o777) << 16
    with pytest.raises(PackageError, match="member 'link' is a link or special file"):
        parse_archive(zipped([*FILES.items(), (link, b"/etc/passwd")]), "x.dlx")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice() -> None:
    with pytest.raises(PackageError, match="member 'empty' is there twice"):
        parse_archive(zipped([*FILES.items(), ("empty", b"other")]), "x.dlx")


def test_encrypted() -> None:
    data = bytearray(STORED)
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    with pytest.raises(PackageError, match=r"member 'package\.json' is encrypted"):
        parse_archive(bytes(data), "x.dlx")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(method: int) -> None:
    with pytest.raises(PackageError, match=f"uses compression method {method}; stored"):
        parse_archive(zipped(list(FILES.items()), method), "x.dlx")


def test_zip_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = indexed({"bomb": bytes(10_000_000)})
    with pytest.raises(PackageError, match=r"\d+ bytes claim to hold 1\d{7}; at most 64 times the file"):
        parse_archive(zipped(list(bomb.items()), zipfile.ZIP_DEFLATED), "x.dlx")


def test_a_member_that_lies_about_its_size_gives_no_more() -> None:
    """The central directory says 10 bytes, the stream inflates to a million."""
    data = bytearray(zipped([*FILES.items(), ("bomb", bytes(1_000_000))], zipfile.ZIP_DEFLATED))
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, central + 24, 10)
    with pytest.raises(PackageError, match="member 'bomb' is damaged"):
        parse_archive(bytes(data), "x.dlx")


def lying_bomb(megabytes: int) -> bytes:
    """A member that claims 1,000 bytes, in both headers and by its CRC, and inflates to as many megabytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()
    files = indexed({"z.bin": bytes(1000)})
    data = bytearray(zipped([("package.json", files["package.json"]), ("z.bin", stream)]))
    crc = zlib.crc32(bytes(1000))
    local, central = data.rindex(b"PK\x03\x04"), data.rindex(b"PK\x01\x02")
    struct.pack_into("<H", data, local + 8, 8)
    struct.pack_into("<III", data, local + 14, crc, len(stream), 1000)
    struct.pack_into("<H", data, central + 10, 8)
    struct.pack_into("<III", data, central + 16, crc, len(stream), 1000)
    return bytes(data)


def test_a_bomb_that_lies_about_its_size_is_not_inflated() -> None:
    data = lying_bomb(64)
    tracemalloc.start()
    with pytest.raises(PackageError, match=r"'z\.bin' is damaged \(it inflates to more than the 1000 bytes that it cl"):
        parse_archive(data, "x.dlx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, peak


def test_members_that_share_their_bytes() -> None:
    data = bytearray(zipped([("a", bytes(100)), ("b", bytes(100))]))
    first, second = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")
    struct.pack_into("<II", data, first + 20, 120, 120)
    with pytest.raises(PackageError, match="members 'a' and 'b' overlap in the zip; refused"):
        parse_archive(bytes(data), "x.dlx")
    struct.pack_into("<I", data, second + 42, 0)
    with pytest.raises(PackageError, match=r"member 'b' is damaged .its header has another name than the directory"):
        parse_archive(bytes(data), "x.dlx")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (STORED + b"x", "no end of a zip, or a comment after it"),
        (STORED[:-2] + b"\x04\0" + b"PK\x05\x06", "no end of a zip, or a comment after it"),
        (STORED[:-2] + b"\x02\0" + b"\0\0", "no end of a zip, or a comment after it"),
        (STORED[:-22] + b"PK\x06\x07" + bytes(16) + STORED[-22:], "a ZIP64 directory, which no package needs"),
        (
            STORED[:-10] + b"\xff\xff\xff\x7f" + STORED[-6:],
            r"directory has 2147483647 bytes; at most 5120000, of 10000",
        ),
    ],
)
def test_directories_that_are_not_parsed(data: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        parse_archive(data, "x.dlx")


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


def test_more_than_a_reader_takes_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    with pytest.raises(PackageError, match=r"its members have \d+ bytes; a package has at most 100"):
        write_archive(tmp_path / "x.dlx", FILES)
    assert list(tmp_path.iterdir()) == []


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(PackageError, match="has 4 members; at most 3 are read"):
        parse_archive(STORED, "x.dlx")


def test_the_limits_themselves_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One less of each is too little: of bytes written, read, inflated, of the index, of members."""
    size, total = len(STORED), sum(map(len, FILES.values()))
    path = tmp_path / "x.dlx"
    for bytes_ in (total, total - 1):
        monkeypatch.setattr(archive, "MAX_BYTES", bytes_)
        with pytest.raises(PackageError, match="members have") if bytes_ < total else contextlib.nullcontext():
            write_archive(path, FILES)
    for module, name, enough, message in [
        (archive, "MAX_BYTES", size, "has .* bytes; a package has at most"),
        (archive, "MAX_INDEX", len(FILES["package.json"]), r"package\.json has \d+ bytes; at most \d+ are read"),
        (archive, "MAX_MEMBERS", len(FILES), "has 4 members; at most 3 are read"),
        (unzip, "MAX_BYTES", total, "claim to hold"),
    ]:
        monkeypatch.setattr(module, name, enough)
        assert read_archive(path) == FILES
        monkeypatch.setattr(module, name, enough - 1)
        with pytest.raises(PackageError, match=message):
            read_archive(path)
        monkeypatch.undo()
    monkeypatch.setattr(unzip, "MAX_EXPANSION", Fraction(total, size))
    assert parse_archive(STORED, "x.dlx") == FILES
    monkeypatch.setattr(unzip, "MAX_EXPANSION", Fraction(total - 1, size))
    with pytest.raises(PackageError, match="claim to hold"):
        parse_archive(STORED, "x.dlx")


def test_the_directory_s_own_limit_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    (size,) = struct.unpack_from("<I", STORED, len(STORED) - 10)
    monkeypatch.setattr(unzip, "MAX_ENTRY", 1)
    assert unzip.read_members(STORED, "x.dlx", size) == FILES
    with pytest.raises(PackageError, match=rf"directory has {size} bytes; at most {size - 1}, of {size - 1} members"):
        unzip.read_members(STORED, "x.dlx", size - 1)


class Claiming(Mapping[str, bytes]):
    """Files of so many bytes, as far as anybody counts them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: str) -> Any:
        return Sized(self.size)


class Sized:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def test_the_limits_are_those_of_the_documents(tmp_path: Path) -> None:
    """docs/package.md: 2 GiB, an index of 16 MiB, 10,000 members, 64 times the file."""
    with pytest.raises(PackageError, match="have 2147483649 bytes; a package has at most 2147483648"):
        write_archive(tmp_path / "x.dlx", Claiming(2 * 1024**3 + 1))
    with pytest.raises(PackageError, match=r"package\.json has 16777217 bytes; at most 16777216 are read"):
        archive.read_index("x.dlx", bytes(16 * 1024**2 + 1))
    many = {f"{i:05}": b"" for i in range(10_000)}
    with pytest.raises(PackageError, match="has 10001 members; at most 10000 are read"):
        parse_archive(written(files=indexed(many)), "x.dlx")
    with pytest.raises(PackageError, match="at most 64 times the file and 2147483648 bytes"):
        parse_archive(zipped([("a", bytes(100_000))], zipfile.ZIP_DEFLATED), "x.dlx")
    names = zipped([("n" * 466, b"")])
    assert list(unzip.read_members(names, "x", 1)) == ["n" * 466]
    with pytest.raises(PackageError, match="directory has 513 bytes; at most 512, of 1 members"):
        unzip.read_members(zipped([("n" * 467, b"")]), "x", 1)


def test_an_extra_field_is_stepped_over() -> None:
    info = zipfile.ZipInfo("a")
    info.extra = struct.pack("<HH3s", 0x7777, 3, b"abc")
    assert unzip.read_members(zipped([(info, b"data"), ("b", b"more")]), "x", 9) == {"a": b"data", "b": b"more"}


LOCAL_NAMES = zipped([("aa", b"data"), ("bb", b"more")], zipfile.ZIP_DEFLATED)
FIRST, LAST = LOCAL_NAMES.index(b"PK\x01\x02"), LOCAL_NAMES.rindex(b"PK\x01\x02")


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (FIRST + 42, 1, "'aa' is damaged .its header is not where the directory says"),
        (LAST + 42, len(LOCAL_NAMES) - 10, "'bb' is damaged .its header is not where the directory says"),
        (LAST + 42, 0, "'bb' is damaged .its header has another name"),
        (LAST + 20, len(LOCAL_NAMES), "'bb' is damaged .cut short"),
        (LAST + 20, 5, "'bb' is damaged .its deflated bytes do not end where"),
        (LAST + 20, 7, "'bb' is damaged .its deflated bytes do not end where"),
        (LAST + 24, 3, "'bb' is damaged .it inflates to more than the 3 bytes that it claims"),
        (LAST + 24, 5, "'bb' is damaged .4 bytes, and the directory says 5"),
        (LAST + 16, 5, "'bb' is damaged .Bad CRC-32"),
        (LAST + 38, stat.S_IFSOCK << 16, "'bb' is a link or special file"),
        (LAST + 38, 0o777 << 16, None),
        (LAST + 38, 0xFFFF, None),
    ],
)
def test_each_claim_of_the_directory_is_checked(position: int, value: int, message: str | None) -> None:
    data = bytearray(LOCAL_NAMES)
    struct.pack_into("<I", data, position, value)
    with pytest.raises(PackageError, match=message) if message else contextlib.nullcontext():
        assert unzip.read_members(bytes(data), "x", 2) == {"aa": b"data", "bb": b"more"}


def test_a_comment_that_is_only_announced() -> None:
    for low, high in ((1, 0), (0, 1)):
        with pytest.raises(PackageError, match="a comment after it"):
            parse_archive(STORED[:-2] + bytes([low, high]), "x.dlx")


@pytest.mark.parametrize("schema", [-1, 1.0, 3])
def test_only_schemas_that_are_known(schema: Any) -> None:
    with pytest.raises(PackageError, match="schema is 3; " if schema == 3 else "must be a whole number from 1"):
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
