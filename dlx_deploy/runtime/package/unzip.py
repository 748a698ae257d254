"""The members of a zip in memory, read so that no claim of the zip is believed: sizes, places and counts are checked.

Python's ``zipfile`` finds the members; their bytes are taken and inflated here, because ``ZipFile.read`` inflates a
member whole before it looks at its size, and reads as many entries as the directory holds.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from typing import Dict, List, Tuple

from ..errors import PackageError

__all__ = ["MAX_BYTES", "check_name", "read_members"]

MAX_BYTES = 2 * 1024**3  # of the file, and of all members together: ONNX's own limit for one model
MAX_ENTRY = 512  # bytes of a member's entry in the directory: 46 and its name
MAX_EXPANSION = 64  # text deflates about 4 times; more than this is a bomb
SAFE_NAME = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")
END, END_SIZE = b"PK\x05\x06", 22
LOCATOR, LOCATOR_SIZE = b"PK\x06\x07", 20  # of ZIP64
LOCAL, LOCAL_SIZE = b"PK\x03\x04", 30
ZIP_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,  # a zip version that zipfile does not know
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    IndexError,
)


def read_members(data: bytes, origin: str, most: int) -> Dict[str, bytes]:
    """Every member of the zip ``data``, by name, at most ``most``; ``origin`` names it in messages.

    Raises:
        PackageError: not a zip or cut short; too many or too large members; an unsafe, doubled, encrypted, linked,
            damaged or overlapping member, or one that inflates to another size than it claims.
    """
    try:
        _check_directory(data, origin, most)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except ZIP_ERRORS as e:
        raise PackageError(
            f"{origin}: not a readable zip ({e}): cut short, damaged, or no dlx package ({len(data)} bytes); "
            "copy or download it again"
        ) from e
    _check_members(origin, infos, len(data), most)
    places = [_place(origin, data, info) for info in infos]
    _check_overlaps(origin, infos, places)
    return {info.filename: _member(origin, data, info, places[i]) for i, info in enumerate(infos)}


def check_name(origin: str, name: str) -> None:
    """Refuses a member's name that is not a safe relative path.

    Raises:
        PackageError: it has other characters, is absolute, or steps up.
    """
    if not SAFE_NAME.fullmatch(name):
        raise PackageError(
            f"{origin}: unsafe member name {name[:200]!r}; names are relative, of letters, digits and ._- joined by /, "
            "without . or .. as a part"
        )


def _check_directory(data: bytes, origin: str, most: int) -> None:
    """That the directory is of a size which is safe to parse, before ``zipfile`` does."""
    end = data[-END_SIZE:]
    if end[:4] != END or end[-2:] != b"\0\0":
        raise zipfile.BadZipFile("no end of a zip, or a comment after it")
    if data[-END_SIZE - LOCATOR_SIZE :][:4] == LOCATOR:
        raise zipfile.BadZipFile("a ZIP64 directory, which no package needs")
    (size,) = struct.unpack_from("<I", end, 12)
    if size > MAX_ENTRY * most:
        raise PackageError(
            f"{origin}: the zip's directory has {size} bytes; at most {MAX_ENTRY * most}, of {most} members"
        )


def _check_members(origin: str, infos: List[zipfile.ZipInfo], size: int, most: int) -> None:
    if len(infos) > most:
        raise PackageError(f"{origin}: has {len(infos)} members; at most {most} are read")
    seen = set()
    for info in infos:
        check_name(origin, info.filename)
        if info.filename in seen:
            raise PackageError(f"{origin}: member {info.filename!r} is there twice; refused")
        seen.add(info.filename)
        _check_kind(origin, info)
    total = sum(info.file_size for info in infos)
    if total > min(MAX_BYTES, MAX_EXPANSION * size):
        raise PackageError(
            f"{origin}: {size} bytes claim to hold {total}; at most {MAX_EXPANSION} times the file and {MAX_BYTES} "
            "bytes are read"
        )


def _check_kind(origin: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x1:
        raise PackageError(f"{origin}: member {info.filename!r} is encrypted; packages are never encrypted")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise PackageError(f"{origin}: member {info.filename!r} is a link or special file; only plain files are read")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackageError(
            f"{origin}: member {info.filename!r} uses compression method {info.compress_type}; stored (0) and "
            "deflated (8) are read"
        )


def _place(origin: str, data: bytes, info: zipfile.ZipInfo) -> Tuple[int, int, int]:
    """Where the member's header starts, and its bytes start and end, in ``data``."""
    start = info.header_offset
    header = data[start : start + LOCAL_SIZE] if start >= 0 else b""
    if len(header) < LOCAL_SIZE or header[:4] != LOCAL:
        raise _damaged(origin, info, "its header is not where the directory says")
    name, extra = struct.unpack_from("<HH", header, 26)
    if data[start + LOCAL_SIZE : start + LOCAL_SIZE + name] != info.orig_filename.encode("utf-8", "surrogateescape"):
        raise _damaged(origin, info, "its header has another name than the directory")
    first = start + LOCAL_SIZE + name + extra
    if first + info.compress_size > len(data):
        raise _damaged(origin, info, "cut short")
    return start, first, first + info.compress_size


def _check_overlaps(origin: str, infos: List[zipfile.ZipInfo], places: List[Tuple[int, int, int]]) -> None:
    """Members that share bytes are how a small zip becomes a large one without being deflated much."""
    order = sorted(range(len(infos)), key=lambda i: places[i])
    for i, j in zip(order, order[1:]):
        if places[j][0] < places[i][2]:
            raise PackageError(
                f"{origin}: members {infos[i].filename!r} and {infos[j].filename!r} overlap in the zip; refused"
            )


def _member(origin: str, data: bytes, info: zipfile.ZipInfo, place: Tuple[int, int, int]) -> bytes:
    _, first, last = place
    content = data[first:last]
    if info.compress_type == zipfile.ZIP_DEFLATED:
        content = _inflated(origin, content, info)
    if len(content) != info.file_size:
        raise _damaged(origin, info, f"{len(content)} bytes, and the directory says {info.file_size}")
    if zlib.crc32(content) != info.CRC:
        raise _damaged(origin, info, "Bad CRC-32")
    return content


def _inflated(origin: str, deflated: bytes, info: zipfile.ZipInfo) -> bytes:
    """What ``deflated`` holds; one byte more than the member claims is enough to know that it lies."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(deflated, info.file_size + 1)
    except zlib.error as e:
        raise _damaged(origin, info, str(e)) from e
    if len(content) > info.file_size:
        raise _damaged(origin, info, f"it inflates to more than the {info.file_size} bytes that it claims")
    if not inflater.eof or inflater.unused_data:
        raise _damaged(origin, info, "its deflated bytes do not end where the directory says")
    return content


def _damaged(origin: str, info: zipfile.ZipInfo, why: str) -> PackageError:
    return PackageError(f"{origin}: member {info.filename!r} is damaged ({why}); copy or download it again")
