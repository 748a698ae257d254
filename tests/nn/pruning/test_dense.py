"""Networks that answer for each pixel, as those of segmentation: skips that are concatenated, resizing, two heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.costs import count_macs
from dlx_deploy.nn.pruning.order import Goal, Order
from dlx_deploy.nn.weights.network import Architecture, load_model, save_model

from ...arrays import check_parity, image_spec
from ...onnx_fixtures import images
from .networks import difference
from .unet import UNet, block

SHAPE = (2, 3, 16, 16)
FILE = Path(__file__).with_name("unet.py")


def net(up: str, **rest: Any) -> nn.Module:
    torch.manual_seed(0)
    return UNet(up, **rest).eval()


@pytest.mark.parametrize("up", ["bilinear", "nearest", "bicubic", "transposed"])
def test_skips_that_are_concatenated_lose_channels_by_themselves(up: str) -> None:
    model = net(up)
    pruned, report = prune_channels(model, SHAPE, Order(Goal(asked=0.4), round_to=4))
    assert report.reduction == pytest.approx(0.4, abs=0.03)
    assert difference(model, pruned) < 1e-5
    skip, below = pruned.get_submodule("down1.0").out_channels, pruned.get_submodule("up2.0").out_channels
    if up == "transposed":
        below = pruned.get_submodule("grow1").out_channels
    assert skip < 16
    assert pruned.get_submodule("up1.0").in_channels == skip + below
    assert pruned.get_submodule("head").out_channels == 5


def test_a_transposed_convolution_loses_what_it_reads_and_what_it_gives() -> None:
    model = net("transposed")
    pruned, report = prune_channels(model, SHAPE, Order(Goal(asked=0.6), round_to=4, keep_trunk=False))
    assert report.left == {"head": "they are the network's outputs"}
    grow, before, after = (pruned.get_submodule(name) for name in ("grow2", "bottom.0", "up2.0"))
    assert grow.in_channels == before.out_channels < 64
    assert grow.out_channels == after.in_channels - pruned.get_submodule("down2.0").out_channels < 64
    assert count_macs(pruned, torch.zeros(1, *SHAPE[1:])) == report.macs_after
    assert report.reduction == pytest.approx(0.6, abs=0.03)


def test_a_grouped_transposed_convolution_is_left_alone() -> None:
    class Grouped(nn.Sequential):
        def __init__(self) -> None:
            grow = nn.ConvTranspose2d(16, 16, 2, 2, groups=4)
            super().__init__(block(3, 16), block(16, 16), grow, block(16, 16), nn.Conv2d(16, 5, 1))

    torch.manual_seed(0)
    pruned, report = prune_channels(Grouped().eval(), SHAPE, Order(Goal(asked=0.2), round_to=4))
    assert {name for name, why in report.left.items() if "convolution in '2'" in why} == {"1.0", "2"}
    assert pruned.get_submodule("2").weight.shape == (16, 4, 2, 2)


def test_every_one_of_several_outputs_is_kept() -> None:
    model = net("bilinear", several=True)
    pruned, report = prune_channels(model, SHAPE, Order(Goal(asked=0.4), round_to=4))
    assert report.reduction == pytest.approx(0.4, abs=0.03)
    with torch.no_grad():
        assert [tuple(t.shape) for t in pruned(torch.zeros(SHAPE))] == [(2, 5, 16, 16), (2, 5)]


class LRASPP(nn.Module):
    """torchvision's LRASPP on its smallest backbone: an attention over the image, and two heads that are added."""

    def __init__(self) -> None:
        from torchvision.models import mobilenet_v3_small
        from torchvision.models._utils import IntermediateLayerGetter
        from torchvision.models.segmentation.lraspp import LRASPP as Theirs

        super().__init__()
        backbone = IntermediateLayerGetter(mobilenet_v3_small().features, {"3": "low", "12": "high"})
        self.network = Theirs(backbone, 24, 576, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)["out"]
        return out


def test_an_lraspp_is_pruned_to_its_two_heads() -> None:
    torch.manual_seed(0)
    model = LRASPP().eval()
    pruned, report = prune_channels(model, (2, 3, 32, 32), 0.3)
    assert report.reduction == pytest.approx(0.3, abs=0.03)
    heads = [f"network.classifier.{name}_classifier" for name in ("low", "high")]
    assert report.left == dict.fromkeys(heads, "they are the network's outputs")
    assert pruned(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)


@pytest.mark.parametrize("up", ["bilinear", "transposed"])
def test_a_pruned_u_net_is_kept_exported_and_answers_alike(up: str, tmp_path: Path) -> None:
    pruned, report = prune_channels(net(up), SHAPE, Order(Goal(asked=0.4), round_to=4))
    architecture = Architecture(
        model=f"{FILE}:make",
        arguments={"up": up},
        classes=5,
        input=ImageInput(3, 16, 16),
        pruned=report.channels,
    )
    save_model(tmp_path / "kept", pruned, architecture)
    loaded, _ = load_model(tmp_path / "kept")
    spec = image_spec(16, 16, 3, (0.5,) * 3, (0.25,) * 3, 17, outputs={"logits": (5, 16, 16)})
    export_onnx(loaded, tmp_path / "m.onnx", spec)
    assert check_parity(tmp_path / "m.onnx", pruned, spec, images(10, 16, 3), 1e-4).relative < 1e-5
