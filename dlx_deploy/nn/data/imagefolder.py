"""Images in folders, one folder per class: what there is, and its pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlx_deploy.errors import DataError, EnvironmentMissing
from dlx_deploy.nn.data.dataset import Images, Labels
from dlx_deploy.nn.data.listing import ImageFolder, check_folder, list_folder
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import BackendMissing, InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import load_image

__all__ = ["Listing", "decode_all", "decode_images", "list_images"]

_DECODERS = 4  # threads; the decoders release the interpreter's lock


@dataclass(frozen=True)
class Listing:
    """Image files of one split, in a fixed order, and the class of each."""

    files: tuple[Path, ...]
    labels: Labels


def list_images(folder: Path, allow_missing: bool = False) -> tuple[ImageFolder, dict[str, Listing]]:
    """What ``folder`` holds, and a ``Listing`` for ``train`` and for each of ``validation`` and ``test`` there is.

    Raises:
        DataError: see ``list_folder`` and ``check_folder``.
    """
    listed = list_folder(folder)
    check_folder(listed, allow_missing)
    number = {name: i for i, name in enumerate(listed.classes)}
    listings = {
        split: Listing(
            tuple(listed.path(split) / name for name, _ in part.images),
            np.array([number[group] for _, group in part.images], dtype=np.int64),
        )
        for split, part in listed.splits.items()
    }
    return listed, listings


def decode_images(files: Sequence[Path], into: Images, framing: Framing, progress: Progress) -> None:
    """Fill ``into`` (uint8[N, H, W, C], NHWC, 0..255) with the decoded ``files`` in their frame.

    Raises:
        DataError, EnvironmentMissing: as ``decode_all``.
    """

    def decode(position: int) -> None:
        into[position] = load_image(files[position], framing)

    decode_all(len(files), decode, "images", progress)


def decode_all(count: int, decode: Callable[[int], None], noun: str, progress: Progress) -> None:
    """Call ``decode`` for 0 to ``count - 1``, several at a time; it raises ``InputError`` for what cannot be used.

    Raises:
        DataError: some cannot: how many of the ``noun``, and the first with its reason.
        EnvironmentMissing: there is no Pillow.
    """
    failures: dict[int, InputError] = {}
    tick = _ticker(count, noun, progress)

    def attempt(position: int) -> None:
        try:
            decode(position)
        except InputError as e:
            failures[position] = e
        tick()

    try:
        with ThreadPoolExecutor(_DECODERS) as pool:
            for _ in pool.map(attempt, range(count)):
                pass
    except BackendMissing as e:
        raise EnvironmentMissing(str(e)) from e
    if failures:
        first = failures[min(failures)]  # names its file
        raise DataError(f"{len(failures)} of {count} {noun} cannot be used; the first: {first}") from first


def _ticker(total: int, noun: str, progress: Progress) -> Callable[[], None]:
    """A call that counts one more done and now and then says so."""
    lock = threading.Lock()
    done = 0

    def tick() -> None:
        nonlocal done
        with lock:
            done += 1
            if done % 256 == 0 or done == total:
                progress(done, total, f"{done} of {total} {noun}")

    return tick
