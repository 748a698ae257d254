"""The pixels of image files, several decoded at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dlx_deploy.errors import DataError, EnvironmentMissing
from dlx_deploy.nn.data.dataset import Images
from dlx_deploy.progress import Progress
from dlx_deploy.runtime.errors import BackendMissing, InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import load_image

__all__ = ["decode_all", "decode_images"]

_DECODERS = 4  # threads; the decoders release the interpreter's lock


def decode_images(
    files: Sequence[Path], into: Images, framing: Framing, progress: Progress, spare: float = 0.0
) -> dict[int, InputError]:
    """Fill ``into`` (uint8[N, H, W, C], NHWC, 0..255) with the decoded ``files`` in their frame; gives back as
    ``decode_all``.

    Raises:
        DataError, EnvironmentMissing: as ``decode_all``.
    """

    def decode(position: int) -> None:
        into[position] = load_image(files[position], framing)

    return decode_all(len(files), decode, "images", progress, spare)


def decode_all(
    count: int, decode: Callable[[int], None], noun: str, progress: Progress, spare: float = 0.0
) -> dict[int, InputError]:
    """Call ``decode`` for 0 to ``count - 1``, several at a time; it raises ``InputError`` for what cannot be used.

    Gives back what could not, by its number, if that is no more than the share ``spare`` of all.

    Raises:
        DataError: more cannot: how many of the ``noun``, and the first with its reason.
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
    if len(failures) > spare * count:
        first = failures[min(failures)]  # names its file
        allowed = f" (data.max_bad_fraction allows {spare:g} of them)" if spare else ""
        raise DataError(f"{len(failures)} of {count} {noun} cannot be used{allowed}; the first: {first}") from first
    return failures


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
