"""Why a checkpoint does not fit: the reason and the keys that make it fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from dlx_deploy.nn.models.hollow import hollow_model, shapes_of
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.recognition.diagnosis import diagnosis
from dlx_deploy.nn.models.recognition.fit import channels_of, compared, outputs_of
from dlx_deploy.nn.models.recognition.likeness import likely_networks
from dlx_deploy.nn.models.recognition.sketch import Shapes, alike, entry_of, plain, read_index


def shapes(name: str, classes: int = 10, side: int = 32, channels: int = 3, **arguments: Any) -> Shapes:
    return shapes_of(hollow_model(name, arguments, classes, ImageInput(channels, side, side)))


def renamed(given: Shapes) -> Shapes:
    return {f"x{i}.w": shape for i, shape in enumerate(given.values())}


@pytest.mark.parametrize(
    ("own", "given", "said"),
    [
        (
            shapes("resnet8"),
            shapes("resnet8", 7),
            r"7 classes .* the network 10: teacher\.new_head = true keeps",
        ),
        (shapes("resnet8"), shapes("resnet8", width=2.0), r"2 times as wide; .*set .*teacher\.arguments\.width = 2\.0"),
        (shapes("resnet8"), shapes("resnet8", channels=1), r"images of 1 channels .* of 3 \(data\.channels\)"),
        (shapes("resnet8"), shapes("resnet20"), r'those of resnet20 .*: set teacher\.model = "resnet20"$'),
        (shapes("resnet8"), shapes("resnet18", 5, 224), r'set teacher\.model = "resnet18", teacher\.new_head = true'),
        (shapes("vit"), shapes("vit", side=64), r"257 positions and the network 65: .*\(data\.height\)"),
        (
            shapes("resnet8"),
            {f"x{i}.w": s for i, s in enumerate(shapes("resnet8").values())},
            r"under other names \('x0",
        ),
        (shapes("resnet8"), {"mine.weight": (7, 31)}, r"teacher\.model = 'FILE\.py:FUNCTION'"),
    ],
)
def test_the_reason_and_the_remedy(own: Shapes, given: Shapes, said: str) -> None:
    assert re.search(said, diagnosis(own, given)), diagnosis(own, given)


def test_a_new_head_that_is_set_is_no_remedy() -> None:
    assert "new_head" not in diagnosis(shapes("resnet8"), shapes("resnet8", 7), new_head=True)


def test_a_wrapper_before_all_names_makes_no_difference() -> None:
    own = shapes("resnet8")
    given = {f"module.net.{name}": shape for name, shape in own.items()}
    assert compared(own, given).fits
    assert [(one.name, one.exact) for one in likely_networks(given)] == [("resnet8", True)]


def test_the_order_of_names_does_not_hide_head_and_channels() -> None:
    given = dict(sorted(plain(shapes("mobilenet_v3_small", 7)).items()))  # as safetensors has them
    assert (outputs_of(given), channels_of(given)) == (7, 3)
    assert channels_of(shapes("resnet8", channels=1)) == 1


def test_a_width_that_a_constructor_takes_by_another_name_is_found() -> None:
    (found,) = likely_networks(shapes("mobilenet_v2", 4, width_mult=0.5))
    assert (found.name, found.arguments, found.classes) == ("mobilenet_v2", {"width_mult": 0.5}, 4)


@pytest.mark.parametrize("hint", ["", "my-tf_efficientnet_lite0-best"])
def test_of_networks_of_one_structure_the_file_name_says_which(hint: str) -> None:
    pytest.importorskip("timm")
    (found,) = likely_networks(shapes("timm:efficientnet_lite0", 5), hint=hint)
    twins = ["timm:efficientnet_lite0", "timm:tf_efficientnet_lite0"]
    assert sorted((found.name, *found.others)) == twins
    assert found.name == twins[1 if hint else 0]


def test_the_index_is_of_networks_as_they_are_built_here() -> None:
    known = {name: entry for entry in read_index().networks for name in entry.names}
    for name in ("resnet8", "resnet18", "mobilenet_v3_small"):
        made = entry_of(name, shapes(name, 1000, 224))
        assert (made.by_name, made.by_shape, made.parameters) == (
            known[name].by_name,
            known[name].by_shape,
            known[name].parameters,
        )
    assert {"unet", "transformer", "vit_b_16"} <= known.keys()
    assert alike(bytes.fromhex(known["resnet8"].by_name), bytes.fromhex(known["vit_b_16"].by_name)) < 0.25


def test_hollow_networks_leave_the_generator_and_memory_alone() -> None:
    before = torch.get_rng_state()
    model = hollow_model("regnet_y_400mf", {}, 10, ImageInput(3, 64, 64))  # its constructor computes with tensors
    assert isinstance(model, nn.Module)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert torch.equal(before, torch.get_rng_state())
