"""Recipes as torchvision, timm and Hugging Face write them, read by these libraries themselves.

What a library does beyond resizing, cutting and normalising is not left out quietly: it is no recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlx_deploy.nn.models.recipes import Recipe, Trained, UnknownRecipe
from dlx_deploy.runtime.tasks.framing import BGR, CROP, FILTERS, FLOOR, LETTERBOX, RGB, SQUASH

__all__ = [
    "hf_processor",
    "hf_recipe",
    "timm_config",
    "timm_recipe",
    "torchvision_preset",
    "torchvision_recipe",
    "wraps_timm",
]

COLOURS = 3
LEVELS = 255
_DEFAULT = "DEFAULT"
_TIMM_RULES = {"center": CROP, "squash": SQUASH, "border": LETTERBOX}
_PLAIN = ("Beit", "Bit", "CLIP", "DeiT", "MobileNetV1", "MobileNetV2", "Pvt", "Segformer", "Siglip", "ViT")
"""Hugging Face's processors that do what their fields say, and no more."""
_OTHERS = ("ConvNext", "EfficientNet", "Levit", "MobileViT", "PoolFormer")
"""Those of which ``hf_recipe`` knows what more they do."""
_WARPS_FROM = 384  # px: from this size on ConvNext's squashes, and cuts nothing
_LEVIT = 256 / 224


def torchvision_preset(trained: Trained) -> tuple[str, Any]:
    """The name of the weights of torchvision that ``trained`` are, and their transforms.

    A checkpoint is the weights from whose URL it has its name; of another name it is taken for the newest ones.

    Raises:
        UnknownRecipe: torchvision has no weights of this network.
    """
    from torchvision import models

    known: Any = models.get_model_weights(trained.name)
    members = known.__members__
    wanted = trained.pretrained or _DEFAULT
    if trained.checkpoint is not None:
        named = [name for name, one in members.items() if one.url.rpartition("/")[2] == trained.checkpoint.name]
        wanted = named[0] if named else _DEFAULT
    if wanted not in members:  # whoever loads the weights says which there are
        raise UnknownRecipe(f"torchvision has no weights {wanted!r} of {trained.name}")
    return f"{known.__name__}.{members[wanted].name}", members[wanted].transforms()


def torchvision_recipe(trained: Trained) -> Recipe:
    """What ``weights.transforms()`` does.

    Raises:
        UnknownRecipe: it is not known what.
    """
    name, preset = torchvision_preset(trained)
    crop = getattr(preset, "crop_size", None)
    box = list(preset.resize_size) * (2 if len(preset.resize_size) == 1 else 1)
    size = [0, 0] if crop is None else list(crop) * (2 if len(crop) == 1 else 1)  # of segmentation: any size
    return Recipe(
        origin=f"the transforms of torchvision's {name}",
        height=size[0],
        width=size[1],
        resize="" if crop is None else CROP,
        resize_size=_covering(box, size),
        interpolation=_filter(preset.interpolation.value),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def timm_config(trained: Trained) -> tuple[str, dict[str, Any]]:
    """Who says it, and what timm's transforms are made by: that of ``config.json``, else of timm's own table.

    Raises:
        UnknownRecipe: timm does not say. ConfigError: timm has no such network.
    """
    import timm

    from dlx_deploy.nn.models.external import check_timm

    data: Any = timm.data
    resolve = data.resolve_data_config
    stored = _read_json(trained).get("pretrained_cfg")
    if isinstance(stored, Mapping):
        return "pretrained_cfg in config.json", resolve({}, pretrained_cfg=dict(stored))
    check_timm(trained.name)
    try:
        own: Any = timm.get_pretrained_cfg(trained.name)
    except (RuntimeError, KeyError, ValueError) as e:
        raise UnknownRecipe(f"timm has no network {trained.name!r}") from e
    if own is None:
        raise UnknownRecipe(f"timm has no pretrained_cfg of {trained.name!r}")
    tagged = f"{own.architecture}.{own.tag}" if own.tag else own.architecture
    return f"timm's pretrained_cfg of {tagged}", resolve({}, pretrained_cfg=own.to_dict())


def timm_recipe(trained: Trained) -> Recipe:
    """What timm's transforms for evaluation do.

    Raises:
        UnknownRecipe: it is not known what.
    """
    origin, config = timm_config(trained)
    channels, height, width = config["input_size"]
    if channels != COLOURS:
        raise UnknownRecipe(f"{origin} is for {channels} channels")
    rule, mean = _TIMM_RULES.get(config["crop_mode"], CROP), tuple(map(float, config["mean"]))
    box = [math.floor(side / config["crop_pct"]) for side in (height, width)]
    return Recipe(
        origin=origin,
        height=height,
        width=width,
        resize=rule,
        resize_size=_covering(box, (height, width)),
        interpolation=_filter(config["interpolation"]),
        mean=mean,
        std=tuple(map(float, config["std"])),
        fill=tuple(round(LEVELS * value) for value in mean) if rule == LETTERBOX else (),
    )


def hf_processor(trained: Trained) -> Any:
    """Hugging Face's image processor of ``trained``, from its folder, or else from the hub.

    Raises:
        UnknownRecipe: there is none. OSError: the hub cannot be reached.
    """
    import transformers

    auto: Any = transformers.AutoImageProcessor
    name = str(trained.folder or trained.name)
    try:
        return auto.from_pretrained(name)
    except (ValueError, TypeError, KeyError) as e:
        raise UnknownRecipe(f"{name} has no image processor that transformers knows ({_first_line(e)})") from e
    except OSError as e:
        if trained.folder is None:
            raise
        raise UnknownRecipe(f"{name} has no preprocessor_config.json") from e


def hf_recipe(trained: Trained) -> Recipe:
    """What the image processor does, as far as its fields and its class say.

    Raises:
        UnknownRecipe: it is not known what. OSError: the hub cannot be reached.
    """
    if wraps_timm(trained):
        return timm_recipe(trained)
    processor = hf_processor(trained)
    kind = type(processor).__name__.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor")
    if kind not in (*_PLAIN, *_OTHERS):
        raise UnknownRecipe(f"{type(processor).__name__} is not one of which it is known here what it does")
    rule, size, box = _hf_geometry(kind, processor)
    mean, std = _hf_normalisation(kind, processor)
    return Recipe(
        origin=f"preprocessor_config.json ({type(processor).__name__})",
        height=size[0],
        width=size[1],
        resize=rule,
        resize_size=_covering(box, size),
        interpolation=_hf_filter(processor.resample),
        mean=mean,
        std=std,
        color_order=BGR if getattr(processor, "do_flip_channel_order", False) else RGB,
        crop_offset=FLOOR,
    )


def wraps_timm(trained: Trained) -> bool:
    """Whether a Hugging Face model's ``config.json`` is of a network of timm's, and says its preprocessing itself."""
    return isinstance(_read_json(trained).get("pretrained_cfg"), Mapping)


def _hf_geometry(kind: str, processor: Any) -> tuple[str, tuple[int, int], tuple[int, int]]:
    """The rule, the size that comes out, and what is resized to before it is cut; both height and width."""
    short = processor.size.get("shortest_edge")
    height, width = processor.size.get("height"), processor.size.get("width")
    if not processor.do_resize or not (short or (height and width)) or processor.size.get("longest_edge"):
        raise UnknownRecipe(f"{type(processor).__name__} resizes to {dict(processor.size)}, or not at all")
    if kind == "ConvNext":
        side = int(short / processor.crop_pct) if short < _WARPS_FROM else short
        return CROP if side > short else SQUASH, (short, short), (side, side)
    rule, box = (CROP, (short, short)) if short else (SQUASH, (height, width))
    if kind == "PoolFormer" and processor.crop_pct:
        rule, box = CROP, (int(box[0] / processor.crop_pct), int(box[1] / processor.crop_pct))
    elif kind == "Levit" and short:
        box = (int(_LEVIT * short), int(_LEVIT * short))
    if getattr(processor, "do_center_crop", False):
        crop = processor.crop_size
        return rule, (crop.get("height"), crop.get("width")), box
    if rule == CROP:
        raise UnknownRecipe(f"{type(processor).__name__} gives images of several sizes")
    return rule, box, box


def _hf_normalisation(kind: str, processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation on the 0..1 scale: ``((x * factor - offset) - mean) / std`` of pixels x."""
    if not processor.do_rescale:
        raise UnknownRecipe(f"{type(processor).__name__} does not rescale pixels")
    factor = float(processor.rescale_factor) * LEVELS
    offset = 1.0 if kind == "EfficientNet" and processor.rescale_offset else 0.0
    mean, std = [0.0] * COLOURS, [1.0] * COLOURS
    if processor.do_normalize:
        mean, std = list(map(float, processor.image_mean)), list(map(float, processor.image_std))
    if kind == "EfficientNet" and processor.include_top:  # divides by it once more
        again = list(map(float, processor.image_std))
        std = [a * b for a, b in zip(std, again, strict=True)]
    return tuple((m + offset) / factor for m in mean), tuple(s / factor for s in std)


def _hf_filter(number: Any) -> str:
    from PIL import Image

    try:
        return _filter(Image.Resampling(int(number)).name.lower())
    except (ValueError, TypeError) as e:
        raise UnknownRecipe(f"resample is {number!r}, no filter of Pillow's") from e


def _filter(name: str) -> str:
    if name not in FILTERS:
        raise UnknownRecipe(f"the interpolation is {name!r}; known here are {', '.join(FILTERS)}")
    return name


def _covering(box: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """``box``, if what has this ``size`` can be cut out of it."""
    if box[0] < size[0] or box[1] < size[1]:
        raise UnknownRecipe(f"images are resized to {list(box)}, and padded to {list(size)}")
    return int(box[0]), int(box[1])


def _read_json(trained: Trained) -> Mapping[str, Any]:
    """The ``config.json`` of ``trained``; empty if there is none that can be read."""
    for path in (path for path in trained.files if path.name == "config.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # whoever builds the network says what is wrong with it
        if isinstance(content, Mapping):
            return content
    return {}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
