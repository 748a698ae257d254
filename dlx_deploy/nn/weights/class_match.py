"""The classes that a network tells apart beside those of the data: the same ones, and in which order; no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.tasks.labels import same_but_for_writing

__all__ = ["few", "order_of", "same_classes"]

log = logging.getLogger(__name__)


def order_of(names: Sequence[str], classes: Sequence[str], where: str) -> list[int]:
    """For each of ``classes`` the position of its name in ``names``; where the data's names are numbers, those.

    Raises:
        ConfigError: the two are not the same classes.
    """
    if list(classes) == [str(i) for i in range(len(names))] and set(names) != set(classes):
        log.warning("%s: the data's classes are the numbers of its outputs: 0 is %s", where, few(names))
        return list(range(len(names)))
    matches = [name if name in names else same_but_for_writing(name, names) for name in classes]
    if len(names) != len(classes) or None in matches or len(set(matches)) != len(classes):
        odd = next((n for n, f in zip(classes, matches, strict=True) if f is None), None)
        said = f"{odd!r} is not in it" if odd is not None else f"it has {len(names)}, the data {len(classes)}"
        raise ConfigError(
            f"{where} tells the classes {few(names)} apart, and the data {few(classes)} ({said}); name them alike, "
            "give the right names as teacher.classes, or train another head with teacher.new_head = true"
        )
    return [list(names).index(str(name)) for name in matches]


def same_classes(names: Sequence[str] | None, classes: Sequence[str]) -> bool:
    """Whether ``names`` are known and those of ``classes``, in any order and writing."""
    alike = {same_but_for_writing(name, names or ()) for name in classes}
    return names is not None and None not in alike and len(names) == len(classes) == len(alike)


def few(names: Sequence[str]) -> str:
    """The first of ``names``, for people."""
    return ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
