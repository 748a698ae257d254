"""A zip that is damaged, made by somebody else or made to harm is refused, and names why."""

from __future__ import annotations

import contextlib
import stat
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package import unzip
from dlx_deploy.runtime.package.archive import parse_archive

from .zips import DEFLATED, FILES, STORED, indexed, zipped


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_truncated(share: float) -> None:
    with pytest.raises(PackageError, match=r"x\.dlx: not a readable zip .*cut short, damaged, or no dlx package"):
        parse_archive(STORED[: int(share * len(STORED))], "x.dlx")


@pytest.mark.parametrize("length", range(4, 23))
def test_nothing_but_the_end_of_a_directory_or_less(length: int) -> None:
    with pytest.raises(PackageError, match=r"x\.dlx: "):
        parse_archive(b"PK\5\6".ljust(length, b"\0"), "x.dlx")


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
