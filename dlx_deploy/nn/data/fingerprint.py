"""The digest of a folder of images, cheap to take again. Standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlx_deploy.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "SPLIT_FOLDERS", "image_names", "tree_digest"]

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_FOLDERS = ("train", "validation", "val", "test")

_SCHEMA = 1
# A file changed again within the clock's granularity keeps its times: what was touched less than this before we
# looked at it is read again next time.
_SETTLE_NS = 2_000_000_000


def image_names(folder: Path) -> list[str]:
    """The sorted names, relative to ``folder`` and with ``/``, of the images below its split folders.

    An image has a suffix of ``IMAGE_SUFFIXES`` in any case; names that begin with a dot are passed over.

    Raises:
        DataError: ``folder`` is not there, or one of its folders cannot be read.
    """
    return [name for name, _ in _listing(folder)]


def tree_digest(folder: Path, cache: Path | None = None) -> str:
    """SHA-256 (hex) over the relative names and contents of the images that ``image_names`` lists.

    ``cache`` is a file of ours that remembers each content's digest beside the file's size, times and inode, so that
    an unchanged tree is not read again. A cache that is damaged or cannot be written only costs time.

    Raises:
        DataError: ``folder`` is not there, or an image cannot be read.
    """
    now = time.time_ns()
    listing = _listing(folder)
    summary = _summary(listing)
    head, files = _read_cache(cache, summary)
    if head is not None:
        return head
    fresh: dict[str, list[Any]] = {}
    whole = hashlib.sha256(b"dlx-deploy image tree 1\n")
    for name, status in listing:
        stamp = _stamp(status)
        entry = files.get(name)
        hit = isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp and isinstance(entry[1], str)
        digest = entry[1] if hit and entry else _file_digest(folder / name)
        if max(status.st_mtime_ns, status.st_ctime_ns) < now - _SETTLE_NS:
            fresh[name] = [stamp, digest]
        whole.update(f"{name}\0{digest}\n".encode("utf-8", "surrogateescape"))
    if cache is not None:
        _write_cache(cache, fresh, summary if len(fresh) == len(listing) else "", whole.hexdigest())
    return whole.hexdigest()


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _summary(listing: list[tuple[str, os.stat_result]]) -> str:
    """A digest of all names and stamps: where it is as it was, no file needs to be looked at alone."""
    text = "\n".join([f"{name}\0{_stamp(status)}" for name, status in listing])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _listing(folder: Path) -> list[tuple[str, os.stat_result]]:
    if not folder.is_dir():
        raise DataError(
            f"data.path: {folder} is not a folder; an imagefolder has {folder.name}/train/CLASS/*.jpg (or .png)"
        )
    found: list[tuple[str, os.stat_result]] = []
    for split in SPLIT_FOLDERS:
        if (folder / split).is_dir():
            found.extend(_walk(str(folder / split), split))
    return sorted(found, key=lambda item: item[0])


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _walk(entry.path, f"{prefix}/{entry.name}")
                elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                    yield f"{prefix}/{entry.name}", entry.stat()
    except OSError as e:
        raise DataError(f"{e.filename or folder}: cannot be read ({e.strerror}); every image of the set must be") from e


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _chunked(f)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); every image of the set must be") from e


def _chunked(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _read_cache(cache: Path | None, summary: str) -> tuple[str | None, dict[str, Any]]:
    """The tree's digest if ``summary`` is the one it was taken at, else ``None`` and what is known of each file."""
    if cache is None:
        return None, {}
    try:
        with cache.open(encoding="utf-8", errors="surrogateescape") as f:
            head = json.loads(f.readline())
            if head["schema"] != _SCHEMA:
                return None, {}
            if head["listing"] == summary:
                return str(head["tree"]), {}
            return None, dict(json.loads(f.readline()))
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError, KeyError, TypeError) as e:
        log.warning("%s: not usable (%s); the images are read again", cache, e)
        return None, {}


def _write_cache(cache: Path, files: dict[str, list[Any]], summary: str, tree: str) -> None:
    """Two lines of JSON: the tree's digest, which is all that an unchanged tree needs, and the files' digests."""
    aside = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    head = {"listing": summary, "schema": _SCHEMA, "tree": tree}
    lines = [json.dumps(part, sort_keys=True, ensure_ascii=False) + "\n" for part in (head, files)]
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        os.replace(aside, cache)
    except OSError as e:
        with contextlib.suppress(OSError):
            aside.unlink()
        log.warning("%s: cannot be written (%s); the images will be read again next time", cache, e.strerror)
