from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.model import input_dims, load
from dlx_deploy.nn.export import network as export
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec, Spec

from ...arrays import check_parity, image_spec, run_onnx
from ...onnx_fixtures import exported, images, op_types, tiny_resnet, trained

DIGITS = image_spec(8, 8, 1, (0.3,), (0.4,), 17)


def small_mobilenet() -> nn.Module:
    """torchvision's MobileNetV3 with a few blocks: depthwise, squeeze-and-excitation, HardSwish, a residual sum."""
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    rows = [(16, 3, 16, 16, True, "RE", 2, 1), (16, 3, 32, 24, False, "HS", 1, 1), (24, 5, 48, 24, True, "HS", 1, 1)]
    return MobileNetV3([InvertedResidualConfig(*row, 1.0) for row in rows], last_channel=32, num_classes=10)


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )
    nn.init.normal_(model.heads.head.weight)  # torchvision starts with zeros: every logit would be 0
    return model


TRACES: dict[tuple[str, int], onnx.ModelProto] = {}
MODELS = {"resnet": (tiny_resnet, 8, 1), "mobilenet": (small_mobilenet, 32, 3), "vit": (small_vit, 16, 3)}


@functools.cache
def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name][0]()


@pytest.fixture
def one_trace_for_old_opsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opsets 13 and 17 come from the same trace; it is made once per model."""
    trace = export._exported

    def cached(wrapped: nn.Module, example: torch.Tensor, spec: Spec) -> onnx.ModelProto:
        key = (type(wrapped.model).__name__, max(spec.opset, export.EXPORTER_OPSET))
        if key not in TRACES:
            TRACES[key] = trace(wrapped, example, spec)
        return load(TRACES[key])

    monkeypatch.setattr(export, "_exported", cached)


@pytest.mark.usefixtures("one_trace_for_old_opsets")
@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("name", MODELS)
def test_every_opset_computes_what_torch_computes(name: str, opset: int, tmp_path: Path) -> None:
    _, side, channels = MODELS[name]
    model, path = built(name), tmp_path / "model.onnx"
    spec = image_spec(side, side, channels, (0.5, 0.4, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels], opset)
    export_onnx(model, path, spec)
    written = onnx.load(path)
    assert written.opset_import[0].version == opset
    report = check_parity(path, model, spec, images(20, side, channels), 1e-4)
    assert not report.vacuous
    assert report.samples == 20
    assert 0 < report.relative <= 1e-4


def test_the_graph_from_outside() -> None:
    model = onnx.load_model_from_string(exported())
    (entry,), (out,) = model.graph.input, model.graph.output
    assert (entry.name, out.name) == ("images", "logits")
    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert out.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (entry, out)]
    assert dims == [["batch", 8, 8, 1], ["batch", 10]]
    assert model.ir_version == 8


def test_the_graph_from_inside() -> None:
    model = onnx.load_model_from_string(exported())
    counts = Counter(op_types(model))
    assert op_types(model)[:5] == ["Cast", "Transpose", "Mul", "Add", "Conv"]  # uint8 goes to a Cast first
    assert counts == {
        "Cast": 1, "Transpose": 1, "Mul": 1, "Add": 3, "Conv": 6, "Relu": 5,
        "GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1,
    }  # fmt: skip
    names = [node.name for node in model.graph.node]
    assert {"preprocess/Cast", "0/Conv", "3.conv1/Conv", "4.short.0/Conv", "3/Add", "7/Gemm"} <= set(names)
    assert len(set(names)) == len(names)
    assert {"4.conv2.weight", "7.bias"} <= {t.name for t in model.graph.initializer}


def test_nothing_of_this_machine_is_stored() -> None:
    model = onnx.load_model_from_string(exported())
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any([model.metadata_props, model.doc_string, model.graph.value_info, model.producer_version])
    for text in (b".py", b"torch", str(Path.cwd()).encode(), str(Path(torch.__file__).parent).encode()):
        assert text not in exported()


def test_a_mean_over_height_and_width_becomes_pooling(tmp_path: Path) -> None:
    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = x * x.mean((2, 3), keepdim=True)
            return self.linear(kept.mean((-1, -2))) * x.mean((1, 2, 3), keepdim=False)[:, None]

    export_onnx(Means(), tmp_path / "m.onnx", DIGITS)
    counts = Counter(op_types(onnx.load(tmp_path / "m.onnx")))
    assert (counts["GlobalAveragePool"], counts["Flatten"], counts["ReduceMean"]) == (2, 1, 1)


def test_a_fixed_batch(tmp_path: Path) -> None:
    export_onnx(trained(), tmp_path / "fixed.onnx", image_spec(8, 8, 1, (0.3,), (0.4,), 17, batch=4))
    model = onnx.load(tmp_path / "fixed.onnx")
    assert [v.type.tensor_type.shape.dim[0].dim_value for v in (*model.graph.input, *model.graph.output)] == [4, 4]
    pictures = images(6)
    np.testing.assert_allclose(
        run_onnx(tmp_path / "fixed.onnx", pictures, False), run_onnx(exported(), pictures, False), atol=1e-4
    )


SMALL = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from torch import nn
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
export_onnx(net, Path(sys.argv[1]), ExportSpec(8, 8, 1, (0.3,), (0.4,), {"logits": (3,)}, 17))
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "there.onnx", tmp_path / "here.onnx"
    root = str(Path(export.__file__).parents[3])
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SMALL, str(there)], env=env, cwd=tmp_path)
    monkeypatch.setattr(sys, "argv", ["", str(here)])
    exec(SMALL, {})  # in this process other models went before
    assert process.wait() == 0
    assert there.read_bytes() == here.read_bytes()


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "m.onnx", DIGITS)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Returning(nn.Module):
    def __init__(self, how: Any) -> None:
        super().__init__()
        self.linear, self.how = nn.Linear(64, 5), how

    def forward(self, x: torch.Tensor) -> Any:
        return self.how(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda y: {"logits": y}, r"the model's output is a dict; rule: one tensor of logits, float32\[N, any\]"),
        (lambda y: y[:, :, None], r"the model's output is float32\[2, 5, 1\] for a batch of 2"),
        (lambda y: y.sum(0, keepdim=True), r"the model's output is float32\[1, 5\] for a batch of 2"),
        (lambda y: y.argmax(1, keepdim=True), r"the model's output is int64\[2, 1\]"),
    ],
)
def test_an_output_that_is_no_logits(how: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export_onnx(Returning(how), tmp_path / "m.onnx", DIGITS)
    assert not list(tmp_path.iterdir())


def test_images_that_the_model_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the model cannot take uint8\[2, 8, 8, 1\]: "):
        export_onnx(tiny_resnet(channels=3), tmp_path / "m.onnx", DIGITS)


def test_a_model_that_torch_cannot_trace(tmp_path: Path) -> None:
    def data_dependent(y: torch.Tensor) -> torch.Tensor:
        return y if y.sum().item() > 0 else -y

    with pytest.raises(StageFailed, match=r"(?s)torch cannot export the model: .*set export\.batch to a number"):
        export_onnx(Returning(data_dependent), tmp_path / "m.onnx", DIGITS)


def test_an_operator_that_the_opset_lacks(tmp_path: Path) -> None:
    class Warped(Returning):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            grid = torch.zeros(1, 8, 8, 2).expand(x.shape[0], 8, 8, 2)
            return self.linear(nn.functional.grid_sample(x, grid, align_corners=False).flatten(1))

    spec = image_spec(8, 8, 1, (0.3,), (0.4,), 13)
    with pytest.raises(StageFailed, match=r"GridSample \(node '.*GridSample'\) cannot be written at opset 13"):
        export_onnx(Warped(None), tmp_path / "m.onnx", spec)


def test_a_model_beyond_two_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "SIZE_LIMIT_BYTES", 1000)
    with pytest.raises(StageFailed, match=r"holds \d+,\d+ bytes of float32 weights; rule: at most 1,000 in one ONNX"):
        export_onnx(tiny_resnet(), tmp_path / "m.onnx", DIGITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.1, 0.2)}, r"mean is \(0\.1, 0\.2\); rule: one value for each of the 1 channels"),
        ({"std": ()}, "std is .*one value for each"),
        ({"std": (0.0,)}, r"std is \(0\.0,\); rule: above 0"),
        ({"opset": 12}, "opset is 12; rule: 13 to"),
        ({"batch": 0}, "batch is 0; rule: 'dynamic', or 1 or more"),
    ],
)
def test_impossible_specs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        image_spec(**({"height": 8, "width": 8, "channels": 1, "mean": (0.3,), "std": (0.4,)} | change))


def test_parity_notices_other_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = tmp_path / "digits.onnx"
    path.write_bytes(exported())
    assert check_parity(path, trained(), DIGITS, images(), 1e-5).relative < 1e-5
    with pytest.raises(
        StageFailed,
        match=r"digits\.onnx: ONNX Runtime and torch differ by .*of the largest of the logits .* on .*; rule: at most",
    ):
        check_parity(path, tiny_resnet(), DIGITS, images(), 1e-3)
    with pytest.raises(StageFailed, match="differ by"):  # the preprocessing counts too
        check_parity(path, trained(), image_spec(8, 8, 1, (0.31,), (0.4,), 17), images(), 1e-3)


def test_parity_says_when_it_means_nothing(tmp_path: Path) -> None:
    dead = Returning(lambda y: y * 0 + 1)
    export_onnx(dead, tmp_path / "dead.onnx", DIGITS)
    report = check_parity(tmp_path / "dead.onnx", dead, DIGITS, images(), 1e-3)
    assert report.vacuous
    assert report.max_abs_diff == 0


def test_parity_refuses_what_is_not_finite(tmp_path: Path) -> None:
    broken = Returning(lambda y: y / 0)
    export_onnx(broken, tmp_path / "b.onnx", DIGITS)
    with pytest.raises(
        StageFailed,
        match=r"b\.onnx: logits are not finite \(NaN or infinite\); the first to be so: the output of the whole net",
    ):
        check_parity(tmp_path / "b.onnx", broken, DIGITS, images(), 1e-3)


def test_parity_refuses_answers_that_are_enormous(tmp_path: Path) -> None:
    huge = Returning(lambda y: y * 1e10)
    export_onnx(huge, tmp_path / "h.onnx", DIGITS)
    with pytest.raises(
        StageFailed,
        match=r"^h\.onnx: logits of up to [\d.]+e\+\d+; the first to pass 65504, where half precision ends: the output "
        r"of the whole network \(Returning\); rule: at most 1e\+07; .* train it longer",
    ):
        check_parity(tmp_path / "h.onnx", huge, DIGITS, images(), 1e-3)


class Counts(nn.Module):
    """Makes plain numbers of sizes, each in its own way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.head = how, nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "len":
            return self.head(x.reshape(len(x), -1))  # type: ignore[no-any-return]
        if self.how == "int":
            return self.head(x.reshape(int(x.shape[0]), -1))  # type: ignore[no-any-return]
        if self.how == "loop":
            return torch.stack([self.head(row.flatten()) for row in x])
        return self.head(x.reshape(x.shape[0], -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["len", "int", "loop", "shape"])
def test_a_batch_that_the_trace_froze_is_refused(tmp_path: Path, how: str) -> None:
    spec = ExportSpec(2, 2, 3, (0.5,) * 3, (0.5,) * 3, {"logits": (3,)})
    if how == "shape":
        export_onnx(Counts(how), tmp_path / "m.onnx", spec)
        assert input_dims(onnx.load(tmp_path / "m.onnx"))["images"][0] is None
        return
    with pytest.raises(StageFailed, match=r"takes one batch size alone, .*\(2\): .*set export\.batch to a number"):
        export_onnx(Counts(how), tmp_path / "m.onnx", spec)
    export_onnx(Counts(how), tmp_path / "m.onnx", replace(spec, batch=4))
