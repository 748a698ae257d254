"""A row's answer is its own: in torch, in ONNX, alone, in a batch and in another order; who is to blame is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

from dlx_deploy.errors import ConfigError, StageFailed
from dlx_deploy.graph.checks.rows import own_rows_differ
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.rows import refuse_dependence

from ...arrays import (
    check_parity,
    class_logits,
    dependence,
    image_spec,
    refuse_dependent_rows,
    run_onnx,
    text_spec,
    unlike,
)
from ...onnx_fixtures import Net, images

Mix = Callable[[Tensor], Tensor]
SPEC = image_spec(8, 8, 1, (0.3,), (0.4,), 17)


class Mixing(nn.Module):
    """A convolution, pooling, whatever ``mix`` does with what it gives (float32[N, 6]), and a linear layer."""

    def __init__(self, mix: Mix, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(1, 6, 3), norm or nn.Identity(), nn.Linear(6, 10)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.norm(self.stem(x)).relu().mean((2, 3))))


DEPENDENT: dict[str, Mix] = {
    "softmax": lambda x: x.softmax(0),
    "normalise": lambda x: functional.normalize(x, dim=0),
    "sort": lambda x: x.sort(0).values,
    "mean": lambda x: x - x.mean(),
    "largest": lambda x: x / x.abs().max(),
    "cumsum": lambda x: x.cumsum(0),
    "first": lambda x: x - x[0],
    "flip": lambda x: x.flip(0),
    "reshape": lambda x: x.T.reshape(-1, 6),
    "attention": lambda x: (x @ x.T).softmax(1) @ x,
    "batch size": lambda x: x * x.shape[0],
}


@pytest.fixture(scope="module")
def any_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of the right shape: torch is asked about its rows before it is compared."""
    net = Net()
    path = tmp_path_factory.mktemp("any") / "net.onnx"
    path.write_bytes(net.head(net.conv("conv", net.planes(), 1, 4), 4).SerializeToString())
    return path


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_network_that_mixes_rows_is_refused_by_the_layer(name: str, any_graph: Path) -> None:
    message = (
        r"depend on the batch: row \d+ gets other logits (alone|in another order) .*the input of 'head' \(Linear\)"
    )
    with pytest.raises(StageFailed, match=rf"{message}; it is mixed in the forward .*nothing over axis 0"):
        check_parity(any_graph, Mixing(DEPENDENT[name]), SPEC, images(20), 1e-3)


class Brightest(nn.Module):
    """Divides by the brightest pixel of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Mixing(lambda x: x)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x / x.abs().max())


def test_what_all_images_have_in_common_hides_no_dependence(any_graph: Path) -> None:
    same = images(20)
    same[:, 0], same[:, 1] = 255, 0  # every image with white and black: the same largest value in any batch
    for spec in (SPEC, image_spec(8, 8, 1, (0.5,), (0.25,), 17)):  # the largest is white's; black's and white's alike
        with pytest.raises(StageFailed, match="answers depend on the batch"):
            check_parity(any_graph, Brightest(), spec, same, 1e-3)
    assert (unlike(same)[::3] == same[::3]).all()
    assert [(int(image.min()), int(image.max())) for image in unlike(same)[:3]] == [(0, 255), (0, 127), (64, 191)]
    tokens = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert unlike(tokens) is tokens


def test_answers_that_are_no_numbers_for_one_row_alone_differ_most() -> None:
    def run(part: NDArray[Any], batch: int) -> NDArray[np.float32]:
        return np.where((part == 3) & (batch == 1), np.nan, np.ones((len(part), 2))).astype(np.float32)

    rows = np.arange(6)[:, None]
    dependent = dependence(run, rows, run(rows, 6), 1e-3)
    assert dependent is not None
    assert (dependent.row, dependent.how, dependent.relative) == (3, "alone", np.inf)


def test_batch_norm_without_running_statistics_is_named(any_graph: Path) -> None:
    model = Mixing(lambda x: x, nn.BatchNorm2d(6, track_running_stats=False))
    with pytest.raises(StageFailed, match=r"the output of 'norm' \(BatchNorm2d\); give it running statistics"):
        check_parity(any_graph, model, SPEC, images(20), 1e-3)


@pytest.mark.parametrize("mix", [lambda x: functional.dropout(x, 0.5, training=True), lambda x: x + torch.randn(6)])
def test_chance_in_evaluation_mode_is_named(mix: Mix, any_graph: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"the input of 'head' \(Linear\) differs from one run to the next; draw noth"
    ):
        check_parity(any_graph, Mixing(mix), SPEC, images(20), 1e-3)


def test_another_size_of_batch_may_take_another_branch(any_graph: Path) -> None:
    with pytest.raises(StageFailed, match="answers depend on the batch"):
        check_parity(any_graph, Mixing(lambda x: x if len(x) < 5 else 2 * x), SPEC, images(20), 1e-3)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.InstanceNorm2d(6), nn.GroupNorm(2, 6)])
def test_what_normalises_each_row_is_fine(norm: nn.Module, tmp_path: Path) -> None:
    model = Mixing(lambda x: x, norm).eval()
    export_onnx(model, tmp_path / "m.onnx", SPEC)
    assert check_parity(tmp_path / "m.onnx", model, SPEC, images(20), 1e-3).relative < 1e-5


class Squeezed(nn.Module):
    def __init__(self, early: bool) -> None:
        super().__init__()
        self.head, self.last, self.early = nn.Conv2d(1, 6, 8), nn.Linear(6, 10), early

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.last(x.squeeze()) if self.early else self.last(x.flatten(1)).squeeze()


@pytest.mark.parametrize(
    ("early", "culprit"),
    [
        (True, r"the input of 'last' \(Linear\) is float32\[6\] for one row"),
        (False, r"the output of the whole network \(Squeezed\) is float32\[10\] for one row"),
    ],
)
def test_a_squeezed_batch_axis_is_refused_before_the_export(early: bool, culprit: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"float32\[10\] for a batch of 1; {culprit}; .*x\.flatten\(1\) instead of"):
        export_onnx(Squeezed(early), tmp_path / "m.onnx", SPEC)
    assert not list(tmp_path.iterdir())


def test_a_network_that_raises_at_one_row_is_refused_by_the_layer(tmp_path: Path) -> None:
    model = Mixing(lambda x: x.squeeze().reshape(len(x.squeeze()) // 6 * 6 or 2, -1) if len(x) == 1 else x)
    with pytest.raises(ConfigError, match=r"cannot take a batch of 1: 'head' \(Linear\) raises RuntimeError: "):
        export_onnx(model, tmp_path / "m.onnx", SPEC)


def test_a_network_that_insists_on_a_size_of_batch_is_refused(any_graph: Path, tmp_path: Path) -> None:
    def even(x: Tensor) -> Tensor:
        assert len(x) % 2 == 0, "pairs only"
        return x

    with pytest.raises(
        ConfigError, match=r"cannot take a batch of 1: the whole network .* raises AssertionError: pairs"
    ):
        export_onnx(Mixing(even), tmp_path / "m.onnx", SPEC)
    with pytest.raises(
        StageFailed, match=r"takes other batches, and for one of 7 it raises AssertionError: pairs only"
    ):
        check_parity(any_graph, Mixing(even), SPEC, images(20), 1e-3)


def test_a_graph_that_cannot_run_a_batch_is_our_error() -> None:
    net = Net()
    net.conv("conv", net.planes(), 1, 4)
    net.constant("pairs", np.array([2, -1, 4, 8, 8]))
    net.constant("whole", np.array([-1, 4, 8, 8]))
    model = net.head(net.add("rows", "Reshape", net.add("split", "Reshape", "conv", "pairs"), "whole"), 4)
    with pytest.raises(StageFailed, match=r"ONNX Runtime cannot run the model on images uint8\[7, 8, 8, 1\]: "):
        refuse_dependent_rows(model.SerializeToString(), images(12), False, 1e-4)


def test_a_graph_that_loses_the_batch_axis_is_our_error() -> None:
    net = Net()
    net.conv("conv", net.planes(), 1, 4)
    net.head("conv", 4)
    net.nodes[-1].output[0] = "scores"
    net.add("logits", "Squeeze", "scores")
    with pytest.raises(StageFailed, match=r"gives logits float32\[10\] for 1 rows; rule: a row of logits for each"):
        run_onnx(net.model().SerializeToString(), images(1), exact_qdq=False)


def test_a_fixed_batch_is_asked_as_the_device_asks_it(any_graph: Path, tmp_path: Path) -> None:
    fixed = image_spec(8, 8, 1, (0.3,), (0.4,), 17, batch=4)
    model = Squeezed(early=False).eval()  # blocks of four are all that it ever sees
    export_onnx(model, tmp_path / "m.onnx", fixed)
    assert check_parity(tmp_path / "m.onnx", model, fixed, images(10), 1e-3).samples == 10
    with pytest.raises(StageFailed, match="answers depend on the batch"):
        check_parity(tmp_path / "m.onnx", Mixing(DEPENDENT["mean"]), fixed, images(10), 1e-3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Squeezed(early=False), r"for a batch of 1; .*; a device asks for one answer at a time"),
        (Mixing(DEPENDENT["first"]), r"depend on the batch: .*the input of 'head' \(Linear\)"),
        (
            Mixing(lambda x: x, nn.BatchNorm2d(6, track_running_stats=False)),
            r"the output of 'norm' \(BatchNorm2d\); give",
        ),
    ],
)
def test_an_untrained_network_is_refused_before_hours_of_work(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_dependence(model, (torch.randn(3, 1, 8, 8),), class_logits(10))
    assert model.training  # left as it was


def test_what_an_untrained_network_may_do() -> None:
    refuse_dependence(Mixing(lambda x: x, nn.BatchNorm2d(6)), (torch.randn(3, 1, 8, 8),), class_logits(10))
    refuse_dependence(Squeezed(early=False), (torch.randn(3, 1, 8, 8),), class_logits(10), fixed=4)
    with pytest.raises(ConfigError, match="depend on the batch"):
        refuse_dependence(Mixing(DEPENDENT["first"]), (torch.randn(3, 1, 8, 8),), class_logits(10), fixed=2)


class Padded(nn.Module):
    """The mean over all tokens, with ``mask`` over those that are no padding."""

    def __init__(self, mask: bool) -> None:
        super().__init__()
        self.table, self.head, self.mask = nn.Embedding(9, 6), nn.Linear(6, 10), mask

    def forward(self, tokens: Tensor) -> Tensor:
        kept = (tokens != 0).unsqueeze(2).float() if self.mask else torch.ones(*tokens.shape, 1)
        return self.head((self.table(tokens) * kept).sum(1) / kept.sum(1))


def texts(count: int = 12) -> NDArray[np.int32]:
    """Tokens int32[count, 6] of 1 to 6 tokens, then padding."""
    tokens = np.random.default_rng(0).integers(1, 9, (count, 6)).astype(np.int32)
    for i, row in enumerate(tokens):
        row[1 + i % 6 :] = 0
    return tokens


def test_a_text_answers_the_same_however_long_its_neighbours_are(any_graph: Path, tmp_path: Path) -> None:
    spec, masked = text_spec(max_length=6, pad_id=0, opset=17), Padded(mask=True).eval()
    export_onnx(masked, tmp_path / "m.onnx", spec)
    assert check_parity(tmp_path / "m.onnx", masked, spec, texts(), 1e-3).relative < 1e-5
    with pytest.raises(StageFailed, match=r"answers depend on the batch: .*mask the padding \(tokens != pad_id\)"):
        check_parity(tmp_path / "m.onnx", Padded(mask=False), spec, texts(), 1e-3)


def mixed_net(op: str, **attributes: Any) -> ModelProto:
    net = Net()
    net.conv("conv", net.planes(), 1, 4)
    return net.head(net.add("mix", op, "conv", **attributes), 4)


@pytest.mark.parametrize(("op", "attributes"), [("Softmax", {"axis": 0}), ("LogSoftmax", {"axis": 0})])
def test_a_graph_that_mixes_rows_is_refused_by_the_node(op: str, attributes: dict[str, Any]) -> None:
    model = mixed_net(op, **attributes).SerializeToString()
    with pytest.raises(StageFailed, match=rf"depend on the batch: .*the first node .* is 'mix/{op}' \({op}\); rule: "):
        refuse_dependent_rows(model, images(12), False, 1e-4)
    refuse_dependent_rows(mixed_net("Relu").SerializeToString(), images(12), False, 1e-4)


def test_only_a_row_that_comes_after_others_may_tell() -> None:
    rows = np.arange(1.0, 9.0)[:, None]

    def running(part: NDArray[Any], batch: int) -> NDArray[np.float32]:
        blocks = [part[i : i + batch].cumsum(axis=0) for i in range(0, len(part), batch)]
        return np.concatenate(blocks).astype(np.float32)

    dependent = dependence(running, rows, running(rows, 8), 1e-4)
    assert dependent is not None
    assert (dependent.row, dependent.how) == (7, "alone")
    assert dependent.relative == pytest.approx(28 / 36)
    assert dependence(lambda part, _: part.astype(np.float32), rows, rows.astype(np.float32), 1e-4) is None


def test_where_the_rows_of_a_tensor_lie() -> None:
    single = [np.full((1, 3, 2), i, np.float32) for i in range(4)]
    together = np.concatenate(single)
    assert not own_rows_differ(together, single, 1e-4)
    assert own_rows_differ(together[::-1], single, 1e-4)
    assert not own_rows_differ(together.transpose(1, 0, 2), [s.transpose(1, 0, 2) for s in single], 1e-4)
    assert not own_rows_differ(together.reshape(12, 2), [s.reshape(3, 2) for s in single], 1e-4)
    assert not own_rows_differ(np.ones((3, 3)), [np.ones((3, 3))] * 4, 1e-4)  # a mask: the same for every row
    assert own_rows_differ(np.array(1.5), [np.array(float(i)) for i in range(4)], 1e-4)  # a mean over the batch
    assert own_rows_differ(together[:, 0, 0], [s[0, 0, 0] for s in single], 1e-4)  # squeezed


def test_answers_that_are_no_numbers_are_not_alike() -> None:
    rows = images(6)
    nothing = np.full((6, 3), np.nan, np.float32)
    depends = dependence(lambda part, size: np.zeros((len(part), 3), np.float32), rows, nothing, 1e-3)
    assert depends is not None
    assert depends.how == "alone"


class Rounded(nn.Module):
    """A network whose answers move by ``steps`` last bits for each row of its batch: what sums in another order do."""

    def __init__(self, steps: float, single: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.steps, self.single = Mixing(lambda x: x), steps, single

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() if self.single else x
        y = self.body(x)
        return y + self.steps * torch.finfo(x.dtype).eps * len(x)


@pytest.fixture(scope="module")
def unrounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rounded") / "m.onnx"
    export_onnx(Rounded(0).body, path, SPEC)
    return path


def test_rounding_is_no_dependence_on_the_batch(unrounded: Path) -> None:
    report = check_parity(unrounded, Rounded(60), SPEC, images(20), 1e-3)
    assert 1e-4 < report.relative < 1e-3  # what a dependence of that size would be refused for
    refuse_dependence(Rounded(1e5), (torch.randn(3, 1, 8, 8),), class_logits(10))  # it is not even trained


def test_rounding_that_no_device_would_repeat_is_said_as_such(unrounded: Path) -> None:
    message = (
        r"^rounding in float32 alone changes the network's answers: row \d+ .* and in float64 none does; .*rule: at "
    )
    with pytest.raises(StageFailed, match=rf"{message}most 1.00e-03 \(export.parity_tolerance\); .* train it longer"):
        check_parity(unrounded, Rounded(1e5), SPEC, images(20), 1e-3)
    for tolerance in (1e-3, 1.0):  # it cannot be told in float64
        with pytest.raises(StageFailed, match="answers depend on the batch"):
            check_parity(unrounded, Rounded(1e6, single=True), SPEC, images(20), tolerance)


class Noisy(nn.Module):
    """Rounds as if its last bits were ``steps``, alike in every batch."""

    def __init__(self, steps: float) -> None:
        super().__init__()
        self.network, self.steps = Rounded(0), steps

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) + self.steps * torch.finfo(x.dtype).eps


def test_parity_that_rounding_breaks_says_so(unrounded: Path) -> None:
    with pytest.raises(
        StageFailed, match=r"\(export.parity_tolerance\); rounding alone is to blame: torch's own .*train"
    ):
        check_parity(unrounded, Noisy(1e5), SPEC, images(20), 1e-3)
    wrong = Rounded(0)
    wrong.body.head.bias.data += 1
    with pytest.raises(StageFailed, match=r"ONNX Runtime and torch differ .*\(export.parity_tolerance\)$"):
        check_parity(unrounded, wrong, SPEC, images(20), 1e-3)
