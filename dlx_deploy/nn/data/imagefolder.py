"""Images in folders, one folder per class: what there is, and its pixels."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlx_deploy.errors import DataError, EnvironmentMissing
from dlx_deploy.nn.data.artifact import Images, Labels
from dlx_deploy.nn.data.listing import image_names
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import BackendMissing, InputError
from dlx_deploy.runtime.images import load_image

__all__ = ["Listing", "decode_images", "list_images"]

_DECODERS = 4  # threads; the decoders release the interpreter's lock


@dataclass(frozen=True)
class Listing:
    """Image files of one split, in a fixed order, and the class of each."""

    files: tuple[Path, ...]
    labels: Labels


def list_images(folder: Path) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """The sorted class names, and a ``Listing`` for ``train`` and for each of ``validation`` and ``test`` there is.

    Raises:
        DataError: no ``train`` folder, one class only, a class without images, a class unknown to ``train``.
    """
    names = image_names(folder)
    if not (folder / "train").is_dir():
        raise DataError(f"data.path: {folder} has no train folder; an imagefolder has train/CLASS/*.jpg (or .png)")
    classes = tuple(sorted(d.name for d in (folder / "train").iterdir() if d.is_dir() and not d.name.startswith(".")))
    if len(classes) < 2:
        seen = f"one class only ({classes[0]!r})" if classes else "no class folder"
        raise DataError(f"{folder / 'train'}: {seen}; a classifier needs train/CLASS folders for at least 2 classes")
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in names:
        split, _, rest = name.partition("/")
        group, slash, _ = rest.partition("/")
        if slash:  # an image directly in train/ belongs to no class
            groups["validation" if split == "val" else split].append((name, group))
    _refuse_empty(folder, classes, {group for _, group in groups["train"]})
    return classes, {split: _listing(folder, split, items, classes) for split, items in groups.items()}


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


def _listing(folder: Path, split: str, items: list[tuple[str, str]], classes: tuple[str, ...]) -> Listing:
    number = {name: i for i, name in enumerate(classes)}
    unknown = sorted({group for _, group in items} - set(classes))
    if unknown:
        raise DataError(
            f"{folder / split}: class {unknown[0]!r} is not in train ({len(unknown)} such); "
            f"train has: {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}"
        )
    labels = np.array([number[group] for _, group in items], dtype=np.int64)
    return Listing(tuple(folder / name for name, _ in items), labels)


def _refuse_empty(folder: Path, classes: tuple[str, ...], filled: set[str]) -> None:
    empty = [name for name in classes if name not in filled]
    if empty:
        raise DataError(
            f"{folder / 'train' / empty[0]}: no image (.jpg, .jpeg, .png) in this class ({len(empty)} such); "
            "add images or remove the folder"
        )


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
