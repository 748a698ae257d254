"""Makes dlx_deploy/nn/models/recognition/index.json: sketches of every network of ours, torchvision's and timm's.

    python scripts/index_networks.py     # 4 minutes; run it for a new timm or torchvision

Networks are built on the meta device, for 1,000 classes and images of 224 x 224, or of the size that they ask for.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import timm
from msgspec.structs import replace

import dlx_deploy
from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.families import TIMM, model_names
from dlx_deploy.nn.models.hollow import hollow_model, shapes_of
from dlx_deploy.nn.models.inputs import ImageInput, InputSpec, TokenInput
from dlx_deploy.nn.models.recognition.sketch import SCHEMA, Entry, Index, entry_of, written

OUT = Path(dlx_deploy.__file__).parent / "nn" / "models" / "recognition" / "index.json"
CLASSES = 1000
IMAGES = [ImageInput(3, size, size) for size in (224, 256, 384, 448, 512)]
TEXTS = [TokenInput(4096, 128)]


def entry(name: str, specs: list[InputSpec]) -> Entry | None:
    """The entry of the network ``name``, built for the first of ``specs`` that it takes."""
    for spec in specs:
        try:
            return entry_of(name, shapes_of(hollow_model(name, {}, CLASSES, spec)))
        except ConfigError:
            continue
    print(f"{name}: cannot be built", file=sys.stderr)
    return None


def main() -> None:
    images = [*model_names("images"), *(f"{TIMM}{name}" for name in timm.list_models())]
    made = [entry(name, list(IMAGES)) for name in images]
    made += [entry(name, list(TEXTS)) for name in model_names("texts")]
    alike: dict[Entry, Entry] = {}
    for one in (one for one in made if one):
        structure = replace(one, names=())
        known = alike.get(structure, structure)
        alike[structure] = replace(known, names=(*known.names, *one.names))
    versions = {name: version(name) for name in ("timm", "torchvision")}
    OUT.write_text(written(Index(SCHEMA, versions, tuple(alike.values()))), encoding="utf-8")
    print(f"{OUT}: {sum(one is not None for one in made)} networks of {len(alike)} structures")


if __name__ == "__main__":
    main()
