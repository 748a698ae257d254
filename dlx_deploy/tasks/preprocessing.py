"""What a network reads here, held against what its own library would show it of the same files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlx_deploy.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dlx_deploy.config import Teacher
    from dlx_deploy.nn.data.dataset import Dataset

__all__ = ["preprocessing_notes", "preprocessing_parity"]

_AT_ONCE = 8
_COLOURS = 3
_LARGE = 0.15
"""Of the mean difference of normalised values: squashed instead of cut is 0.5, cut one px further on 0.05."""
_FEW = 0.95
"""Of the share of pictures of which both say the same."""


def preprocessing_parity(task: Task, section: Teacher, data: Dataset, model: nn.Module) -> dict[str, float]:
    """How the kept originals of ``data`` differ, as ``model`` reads them, from what the library of its weights makes.

    Of normalised values the largest and the mean absolute difference, and the share of pictures to which ``model``
    answers the same class; nothing where no library says how it preprocesses, or where sizes differ.
    """
    import numpy as np
    import torch

    from dlx_deploy.nn.data.originals import original_files
    from dlx_deploy.nn.models.families import loaded
    from dlx_deploy.nn.models.recipes import UnknownRecipe, trained_by
    from dlx_deploy.runtime.tasks.images import load_image, open_picture
    from dlx_deploy.tasks.images import image_header

    files, known = original_files(data.folder), trained_by(section)
    if not files or known is None:
        return {}
    framing, feed = image_header(data).framing, task.inputs.feed(data)
    try:
        reference = loaded(known[0].reference)(known[1])
    except (UnknownRecipe, OSError):  # it cannot be had any more
        return {}
    largest, total, same = 0.0, 0.0, 0
    for start in range(0, len(files), _AT_ONCE):
        some = files[start : start + _AT_ONCE]
        pixels = np.stack([load_image(path, framing) for path in some])
        theirs = [reference(open_picture(path, _COLOURS)) for path in some]
        if any(picture.shape != (framing.channels, framing.height, framing.width) for picture in theirs):
            return {}
        ours, there = feed(torch.from_numpy(pixels)), torch.stack(theirs)
        difference = (ours - there).abs()
        largest, total = max(largest, float(difference.max())), total + float(difference.mean()) * len(pixels)
        same += int((_answers(model, ours) == _answers(model, there)).sum())
    return {
        "preprocessing_images": float(len(files)),
        "preprocessing_max_abs_diff": largest,
        "preprocessing_mean_abs_diff": total / len(files),
        "preprocessing_top1_agreement": same / len(files),
    }


def _answers(model: nn.Module, images: Tensor) -> Tensor:
    """int64[N]: the class that ``model`` answers."""
    import torch

    model.eval()
    with torch.no_grad():
        answers: Tensor = model(images.to(next(model.parameters()).device)).argmax(1).cpu()
    return answers


def preprocessing_notes(metrics: Mapping[str, float]) -> Sequence[str]:
    """What ``preprocessing_parity`` found, in a sentence; with a warning where it is much."""
    count = int(metrics.get("preprocessing_images", 0))
    if not count:
        return ()
    mean, agreement = metrics["preprocessing_mean_abs_diff"], metrics["preprocessing_top1_agreement"]
    said = (
        f"preprocessing: of {count} files what the network reads differs from what its own library makes by {mean:.4f} "
        f"on average (normalised values; at most {metrics['preprocessing_max_abs_diff']:.4f}), and it answers "
        f"{round(agreement * count)} of them alike"
    )
    much = mean > _LARGE or agreement < _FEW
    return (f"{said}; that is much: leave resize, interpolation, mean and std out of [data]" if much else said,)
