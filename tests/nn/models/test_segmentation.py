"""Networks that answer for each pixel: our U-Net, and torchvision's under their own names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision import models

from dlx_deploy.errors import ConfigError
from dlx_deploy.nn.models.families import model_names
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.names import check_name
from dlx_deploy.nn.models.registry import build_model, check_output
from dlx_deploy.nn.models.unet import UNet
from dlx_deploy.nn.training.transfer import layer_groups, load_with_new_head
from dlx_deploy.nn.weights.checkpoint import load_into

SPEC = ImageInput(3, 32, 48)


@pytest.mark.parametrize("arguments", [{}, {"width": 4, "depth": 1}, {"width": 3, "depth": 4}])
def test_a_unet_answers_for_each_pixel(arguments: dict[str, int]) -> None:
    check_output(build_model("unet", arguments, 5, SPEC), {"logits": (5, 32, 48)}, SPEC)


def test_a_unet_sees_far_and_near() -> None:
    """One pixel changes the answer at the same place and, over the way down, far from it."""
    torch.manual_seed(0)
    model = UNet(1, 2, 4, 3).eval()
    image = torch.zeros(1, 1, 32, 32)
    with torch.no_grad():
        before = model(image)
        image[0, 0, 16, 16] = 9
        changed = (model(image) != before).any(dim=1)[0].nonzero()
    assert (changed.amin(0) <= 6).all()
    assert (changed.amax(0) >= 26).all()


@pytest.mark.parametrize(
    ("arguments", "spec", "message"),
    [
        (
            {"depth": 4},
            ImageInput(3, 24, 32),
            "images are 24 x 32, and depth 4 halves them so often; both",
        ),
        ({"width": 0}, SPEC, "argument width is 0; must be a whole number from 1 to 512"),
        ({"depth": 2.0}, SPEC, r"argument depth is 2\.0; must be a whole number from 1 to 6"),
        ({"widht": 8}, SPEC, "unknown argument 'widht'"),
    ],
)
def test_unets_that_cannot_be(arguments: dict[str, int], spec: ImageInput, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("unet", arguments, 5, spec)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_torchvisions_networks_keep_their_weights_names(name: str) -> None:
    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None, weights_backbone=None, num_classes=4).eval()
    ours = build_model(name, {}, 4, SPEC).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images)["out"])


def test_other_channels_and_no_second_head() -> None:
    spec = ImageInput(1, 32, 32)
    check_output(build_model("lraspp_mobilenet_v3_large", {}, 3, spec), {"logits": (3, 32, 32)}, spec)
    theirs = models.get_model("fcn_resnet50", weights=None, weights_backbone=None, num_classes=3, aux_loss=True)
    ours = build_model("fcn_resnet50", {}, 3, SPEC)
    load_into(ours, theirs.state_dict(), Path("fcn.pth"))
    assert torch.equal(ours.state_dict()["classifier.4.weight"], theirs.state_dict()["classifier.4.weight"])
    assert all(name.startswith("classifier.") for name in layer_groups(ours)[0])
    with pytest.raises(ConfigError, match=r"takes no arguments; they are \{'widht': 2\}"):
        build_model("lraspp_mobilenet_v3_large", {"widht": 2}, 3, SPEC)


def test_names_say_what_is_answered() -> None:
    assert {"unet", "lraspp_mobilenet_v3_large", "deeplabv3_resnet50"} <= set(model_names("images", "masks"))
    assert "unet" not in model_names("images", "classes")
    with pytest.raises(ConfigError, match=r"'resnet20' gives classes, and the data ask for masks; .*'unet'"):
        check_name("teacher", "resnet20", "images", "masks", {})
    with pytest.raises(ConfigError, match=r"'unet' gives masks, and the data ask for classes; .*'resnet20'"):
        check_name("teacher", "unet", "images", "classes", {})


def test_weights_of_other_classes_keep_all_but_the_head() -> None:
    theirs = models.get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21)
    ours = build_model("lraspp_mobilenet_v3_large", {}, 3, SPEC)
    load_with_new_head(ours, theirs.state_dict(), Path("lraspp.pth"))
    state = ours.state_dict()
    assert all(torch.equal(state[name], t) for name, t in theirs.state_dict().items() if name.startswith("backbone."))
    check_output(ours, {"logits": (3, 32, 48)}, SPEC)
