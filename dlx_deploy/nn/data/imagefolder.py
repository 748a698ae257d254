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
from dlx_deploy.runtime.tasks.images import load_image

__all__ = ["Listing", "decode_images", "list_images"]

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


def decode_images(files: Sequence[Path], into: Images, progress: Progress) -> None:
    """Fill ``into`` (uint8[N, H, W, C], NHWC, 0..255) with the decoded and resized ``files``.

    Raises:
        DataError: some images cannot be decoded: how many, and the first with its reason.
        EnvironmentMissing: there is no Pillow.
    """
    _, height, width, channels = into.shape
    failures: dict[int, InputError] = {}
    tick = _ticker(len(files), progress)

    def decode(position: int) -> None:
        try:
            into[position] = load_image(files[position], height, width, channels)
        except InputError as e:
            failures[position] = e
        tick()

    try:
        with ThreadPoolExecutor(_DECODERS) as pool:
            for _ in pool.map(decode, range(len(files))):
                pass
    except BackendMissing as e:
        raise EnvironmentMissing(str(e)) from e
    if failures:
        first = failures[min(failures)]  # names its file
        raise DataError(f"{len(failures)} of {len(files)} images cannot be used; the first: {first}") from first


def _ticker(total: int, progress: Progress) -> Callable[[], None]:
    """A call that counts one more image done and now and then says so."""
    lock = threading.Lock()
    done = 0

    def tick() -> None:
        nonlocal done
        with lock:
            done += 1
            if done % 256 == 0 or done == total:
                progress(done, total, f"{done} of {total} images")

    return tick
