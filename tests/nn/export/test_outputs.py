"""Networks whose answers are no row of logits: dense ones, and several outputs of different rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export import parity
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.rows import refuse_dependence
from dlx_deploy.nn.models.inputs import ImageInput
from dlx_deploy.nn.models.outputs import Outputs
from dlx_deploy.nn.models.registry import check_output
from dlx_deploy.runtime.tasks import arrays

from ...arrays import check_parity, image_spec
from ...onnx_fixtures import images

READS = ImageInput(1, 8, 8)
DENSE: Outputs = {"logits": (3, 8, 8)}
BOTH: Outputs = {"boxes": (5, 4), "scores": (3,)}


class Dense(nn.Module):
    """Logits of 3 classes for each pixel; ``mix`` is what is done to them."""

    def __init__(self, mix: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.mix = nn.Conv2d(1, 6, 3, 2, 1), nn.Conv2d(6, 3, 1), mix

    def forward(self, x: Tensor) -> Tensor:
        small = self.head(torch.relu(self.body(x)))
        full: Tensor = nn.functional.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False)
        return self.mix(full) if self.mix else full


class Both(nn.Module):
    """Five boxes and three scores; ``change`` is what is done to the two."""

    def __init__(self, change: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.boxes, self.scores, self.change = nn.Linear(64, 16), nn.Linear(16, 20), nn.Linear(16, 3), change

    def forward(self, x: Tensor) -> Any:
        body = torch.relu(self.body(x.flatten(1)))
        both = self.boxes(body).unflatten(1, (5, 4)), self.scores(body)
        return self.change(*both) if self.change else both


def spec(outputs: Outputs, **rest: Any) -> Any:
    return image_spec(8, 8, 1, (0.3,), (0.4,), 17, outputs=outputs, **rest)


CASES = [(Dense, DENSE), (Both, BOTH)]


@pytest.mark.parametrize(("kind", "outputs"), CASES)
def test_from_torch_to_onnx_and_back(kind: type[nn.Module], outputs: Outputs, tmp_path: Path) -> None:
    model, path = kind().eval(), tmp_path / "m.onnx"
    check_output(model, outputs, READS)
    refuse_dependence(model, (READS.drawn(3),), outputs)
    export_onnx(model, path, spec(outputs))
    graph = onnx.load(path).graph
    assert [o.name for o in graph.output] == list(outputs)
    dims = [[d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in graph.output]
    assert dims == [["batch", *sizes] for sizes in outputs.values()]
    report = check_parity(path, model, spec(outputs), images(20), 1e-4)
    assert (report.samples, report.vacuous) == (20, ())
    assert report.output in outputs
    assert report.relative < 1e-5


def test_a_fixed_batch_of_several_outputs(tmp_path: Path) -> None:
    export_onnx(Both().eval(), tmp_path / "m.onnx", spec(BOTH, batch=4))
    assert check_parity(tmp_path / "m.onnx", Both().eval(), spec(BOTH, batch=4), images(10), 1e-4).relative < 1e-5


def test_dense_answers_are_compared_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path, asked = Dense().eval(), tmp_path / "m.onnx", []
    export_onnx(model, path, spec(DENSE))
    whole = check_parity(path, model, spec(DENSE), images(20), 1e-4)
    run = parity.run_onnx

    def counted(path: Path, samples: Samples, **rest: Any) -> Any:
        asked.append(len(samples))
        return run(path, samples, **rest)

    monkeypatch.setattr(parity, "run_onnx", counted)
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 6 * 3 * 8 * 8 * 4)  # six answers
    parts = check_parity(path, model, spec(DENSE), images(20), 1e-4)
    assert asked == [6, 6, 6, 2]
    assert parts.max_abs_diff == pytest.approx(whole.max_abs_diff, abs=1e-6)
    assert (parts.samples, parts.vacuous) == (20, ())


def test_the_output_that_is_furthest_is_named(tmp_path: Path) -> None:
    export_onnx(Both().eval(), tmp_path / "m.onnx", spec(BOTH))
    other = Both(lambda boxes, scores: (boxes, scores + 1)).eval()
    with pytest.raises(
        StageFailed, match=r"differ by \S+ of the largest of the scores .* on 20 images; rule: at most 1\.00e-03"
    ):
        check_parity(tmp_path / "m.onnx", other, spec(BOTH), images(20), 1e-3)


def test_an_output_that_says_nothing_is_named(tmp_path: Path) -> None:
    dead = Both(lambda boxes, scores: (boxes, scores * 0 + 1)).eval()
    export_onnx(dead, tmp_path / "m.onnx", spec(BOTH))
    report = check_parity(tmp_path / "m.onnx", dead, spec(BOTH), images(20), 1e-3)
    assert (report.output, report.vacuous) == ("boxes", ("scores",))
    assert check_parity(tmp_path / "m.onnx", dead, spec(BOTH), images(1), 1e-3).vacuous == ("scores",)


def test_values_that_are_no_numbers_are_refused_in_any_output(tmp_path: Path) -> None:
    broken = Both(lambda boxes, scores: (boxes, scores / 0)).eval()
    export_onnx(broken, tmp_path / "m.onnx", spec(BOTH))
    with pytest.raises(StageFailed, match="scores are not finite"):
        check_parity(tmp_path / "m.onnx", broken, spec(BOTH), images(20), 1e-3)


MIXED = r"row \d+ gets other {} .* of the largest of the {}\)"


@pytest.mark.parametrize(
    ("mixing", "outputs", "message"),
    [
        (Dense(lambda x: x - x.mean(0, keepdim=True)), DENSE, MIXED.format("logits", "logits")),
        (Both(lambda boxes, scores: (boxes, scores - scores.mean(0))), BOTH, MIXED.format("scores", "scores")),
        (Both(lambda boxes, scores: (boxes.flip(0), scores)), BOTH, MIXED.format("boxes", "boxes")),
    ],
)
def test_an_answer_that_depends_on_its_neighbours(
    mixing: nn.Module, outputs: Outputs, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_dependence(mixing.eval(), (READS.drawn(3),), outputs)
    export_onnx(mixing, tmp_path / "m.onnx", spec(outputs))
    with pytest.raises(StageFailed, match=message):
        check_parity(tmp_path / "m.onnx", mixing, spec(outputs), images(20), 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b, s: [b, s],
            r"the model's output is a list; rule: a tuple of tensors: boxes, float32\[N, 5, 4\] and ",
        ),
        (lambda b, s: b, r"the model's output is a Tensor; rule: a tuple"),
        (
            lambda b, s: (b, s, s),
            r"the model's output is a tuple; rule: a tuple of tensors: .* scores, float32\[N, 3\]",
        ),
        (lambda b, s: (s, b), r"the model's output is float32\[2, 3\] for a batch of 2; rule"),
        (lambda b, s: (b, s.double()), r"the model's output is float64\[2, 3\] for a batch of 2"),
        (lambda b, s: (b, s if len(s) > 1 else s[:, :2]), r"float32\[2, 3\] for a batch of 2 and float32\[1, 2\]"),
    ],
)
def test_other_outputs_than_those_of_the_task(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export_onnx(Both(change), tmp_path / "m.onnx", spec(BOTH))


@pytest.mark.parametrize(
    ("model", "outputs", "message"),
    [
        (
            Both(lambda b, s: b),
            BOTH,
            r"gives a Tensor .*; it must give a tuple of boxes \[N, 5, 4\] and scores \[N, 3\]",
        ),
        (Both(lambda b, s: (s, b)), BOTH, r"the model gives \[2, 3\] and \[2, 5, 4\] for images \[2, 1, 8, 8\]"),
        (Both(), DENSE, r"the model gives a tuple for images .*; it must give logits \[N, 3, 8, 8\]"),
        (Dense(lambda x: x[..., ::2]), DENSE, r"the model gives \[2, 3, 8, 4\] for images .*logits \[N, 3, 8, 8\]"),
    ],
)
def test_a_network_is_asked_for_what_its_task_answers(model: nn.Module, outputs: Outputs, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_output(model, outputs, READS)


def test_sizes_that_a_task_leaves_open() -> None:
    check_output(Both(), {"boxes": (None, 4), "scores": (None,)}, READS)
    with pytest.raises(ConfigError, match=r"must give a tuple of boxes \[N, any, 5\] and scores \[N, 3\]"):
        check_output(Both(), {"boxes": (None, 5), "scores": (3,)}, READS)
