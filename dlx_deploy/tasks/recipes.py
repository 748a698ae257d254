"""The preprocessing that a network's weights ask for, where ``[data]`` leaves it open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from dlx_deploy.config import Config, Data
from dlx_deploy.nn.data.frames import framing_of, rescaled
from dlx_deploy.nn.models.recipes import Recipe, is_unread, keep_recipe, read_recipe
from dlx_deploy.runtime.tasks.framing import FLOOR, RGB, ROUND, Framing
from dlx_deploy.tasks import TASKS, task_for
from dlx_deploy.tasks.images import Images

if TYPE_CHECKING:
    from dlx_deploy.pipeline.pool import Pool

__all__ = ["asked_apart", "with_recipe"]

_CLOSE = 1e-3
"""Of means and deviations on the 0..1 scale: a quarter of a level."""


_ORIGINALS = 64
"""Files that are kept to hold preprocessing against that of the network's own library."""


def with_recipe(config: Config, cache: Path) -> tuple[Config, tuple[str, ...]]:
    """``config``, whose ``[data]`` has what the teacher's weights were trained for wherever it said nothing; and notes.

    The notes: what was taken and from whom, and where ``[data]`` says something else. Of images that are no files, and
    of weights whose metadata say nothing, nothing is taken.

    Raises:
        ConfigError: ``data.kind`` is unknown, or keys of ``[data]`` contradict each other.
    """
    if not _reads_files(config):
        return config, ()
    reading = read_recipe(config.teacher, cache)
    if reading.recipe is None:
        return config, (_unknown(reading.reason),) if reading.reason else ()
    taken = _taken(config.data, reading.recipe)
    data = replace(config.data, **taken, originals=config.data.originals or _ORIGINALS)
    notes = [f"[data] as {reading.recipe.origin} says: {_told(taken)}"] if taken else []
    return replace(config, data=data), (*notes, *_mismatches(data, taken, reading.recipe))


def asked_apart(config: Config, cache: Path) -> Pool | None:
    """A worker that has asked what ``with_recipe`` wants to know and kept it, unless that is known already.

    So torch stays out of this process's memory, and the worker has it for its first step.

    Raises:
        Exception: as ``with_recipe``, or the worker ended.
    """
    if not (_reads_files(config) and is_unread(config.teacher, cache)):
        return None
    from dlx_deploy.pipeline.pool import Pool
    from dlx_deploy.pipeline.worker import packed

    workers, task = Pool(), packed(keep_recipe, (config.teacher, cache))
    assert task is not None
    try:
        workers.finish(task)
    except BaseException:
        workers.stop()
        raise
    return workers


def _reads_files(config: Config) -> bool:
    """Whether images are read from files, whose preprocessing is to be known."""
    task = task_for(config.data)
    return task.name in TASKS and isinstance(task.inputs, Images) and not task.kinds[config.data.kind]


def _unknown(reason: str) -> str:
    return f"[data]: how the weights want pictures preprocessed is not known ({reason}); say it there if they do"


def _taken(data: Data, recipe: Recipe) -> dict[str, Any]:
    """The keys of ``data`` that were left open, with what ``recipe`` says of them."""
    taken: dict[str, Any] = {}
    if not data.height and recipe.height:
        taken |= {"height": recipe.height, "width": data.width or recipe.width}
    sized = replace(data, **taken)
    if recipe.resize and sized.height and not (data.resize or data.crop_fraction or data.resize_size or data.fill):
        taken["resize"] = recipe.resize
        size, box = (sized.height, sized.width or sized.height), _box(sized, recipe)
        taken |= {"resize_size": box} if box != size else {}
        taken |= {"fill": recipe.fill} if recipe.fill else {}
    if not data.crop_offset and recipe.crop_offset != ROUND and _cuts(replace(data, **taken)):
        taken["crop_offset"] = recipe.crop_offset
    if not data.interpolation:
        taken["interpolation"] = recipe.interpolation
    if data.channels == 1:
        return taken
    if not data.color_order and recipe.color_order != RGB:
        taken["color_order"] = recipe.color_order
    if not data.scale:
        taken |= {} if data.mean else {"mean": recipe.mean}
        taken |= {} if data.std else {"std": recipe.std}
    return taken


def _cuts(data: Data) -> bool:
    """Whether ``data`` may have something cut off, so that where it begins is worth a word."""
    return data.height > 0 and framing_of(replace(data, crop_offset=FLOOR)).crop_offset == FLOOR


def _box(data: Data, recipe: Recipe) -> tuple[int, int]:
    """What pictures are resized to, as much larger than the size of ``data`` as the recipe's is than its own."""
    height, width = data.height, data.width or data.height
    if (height, width) == (recipe.height, recipe.width):
        return recipe.resize_size
    return (
        math.floor(height * recipe.resize_size[0] / recipe.height),
        math.floor(width * recipe.resize_size[1] / recipe.width),
    )


def _mismatches(data: Data, taken: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """One sentence for each of what ``data`` says otherwise than ``recipe``."""
    if not data.height:
        return []  # its check says so
    here = framing_of(data)
    pairs = []
    if recipe.height and (here.height, here.width) != (recipe.height, recipe.width):
        pairs.append((f"the size is {here.height} x {here.width}", f"{recipe.height} x {recipe.width}"))
    if recipe.resize:
        meant = Framing(
            here.height, here.width, here.channels, resize=recipe.resize, box=_box(data, recipe), fill=here.fill
        )
        if (here.resize, here.box) != (meant.resize, meant.box):
            pairs.append((f"pictures are brought to it by {_rule(here)}", _rule(meant)))
        if _cuts(data) and here.crop_offset != recipe.crop_offset:
            pairs.append((f"half of what is cut off is rounded by {here.crop_offset}", recipe.crop_offset))
    if here.interpolation != recipe.interpolation:
        pairs.append((f"the interpolation is {here.interpolation}", recipe.interpolation))
    if data.channels == 1:
        pairs.append(("images are grey", "colour"))
    else:
        if here.color_order != recipe.color_order:
            pairs.append((f"colours are in the order {here.color_order}", recipe.color_order))
        for name, theirs in (("mean", recipe.mean), ("std", recipe.std)):
            ours = rescaled(list(getattr(data, name)), data.scale)
            if len(ours) != len(theirs) or any(abs(a - b) > _CLOSE for a, b in zip(ours, theirs, strict=True)):
                pairs.append((f"the {name} is {_numbers(ours)}", _numbers(theirs)))
    return [
        f"[data]: {ours}, and {recipe.origin} says {theirs}: the network may answer worse than it could"
        for ours, theirs in pairs
    ]


def _rule(framing: Framing) -> str:
    height, width = framing.target
    return f"{framing.resize} from {height} x {width}" if framing.box else framing.resize


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} = {_numbers(value) if isinstance(value, tuple) else repr(value)}" for key, value in values.items()
    )


def _numbers(values: Any) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"
