"""A plan that would change what a network computes is objected to, and the groups to blame are dropped."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlx_deploy.nn.pruning.channels as pruning
import dlx_deploy.nn.pruning.oracle as oracle
from dlx_deploy.errors import StageFailed
from dlx_deploy.nn.pruning.channels import prune_channels
from dlx_deploy.nn.pruning.groups import resolve
from dlx_deploy.nn.pruning.operations import rule_for
from dlx_deploy.nn.pruning.oracle import Oracle
from dlx_deploy.nn.pruning.trace import Arguments, Operation, Rule, Trace, trace_channels

from .networks import SHAPE, TWO, Net, as_much_as_possible, block, difference


def rolled() -> Net:
    """Channels turned round in a circle, which must all stay."""
    return Net(lambda x, a, b: b(a(x).roll(5, 1)), *copy.deepcopy(TWO))


def wrongly_known(func: Operation) -> Rule | None:
    """As if turning channels round in a circle kept them in place."""
    known = rule_for(func)
    if func.overloadpacket.__name__ != "roll":
        return known

    def same(trace: Trace, _: Operation, given: Arguments, results: Sequence[Tensor]) -> bool:
        trace.give(results[0], trace.of(given["self"]))
        return True

    return same


def test_the_oracle_drops_what_a_wrong_rule_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    model = rolled()
    monkeypatch.setattr(pruning, "rule_for", wrongly_known)
    pruned, report = as_much_as_possible(model)
    assert difference(model, pruned) < 1e-5
    assert re.fullmatch(
        r"its answers are \d\.\de[-+]\d\d of the largest off from those of the network without these channels",
        report.left["parts.0.0"],
    )
    assert report.channels["stem.0"].outputs < 32
    monkeypatch.setattr(Oracle, "objection", lambda *_: "")
    pruned, _ = as_much_as_possible(model)
    assert difference(model, pruned) > 0.01  # so the check by hand sees it as well


def a_head_of_zeros(model: Net) -> None:
    nn.init.zeros_(model.head.weight)


def a_head_of_zeros_behind_integers(model: Net) -> None:
    model.register_parameter("table", nn.Parameter(torch.arange(4), requires_grad=False))
    nn.init.zeros_(model.head.weight)


def statistics_that_let_nothing_through(model: Net) -> None:
    model.parts[1][1].running_var.fill_(1e20)  # type: ignore[index,operator,union-attr]


@pytest.mark.parametrize(
    "hide", [a_head_of_zeros, a_head_of_zeros_behind_integers, statistics_that_let_nothing_through]
)
def test_the_oracle_is_not_blinded(hide: Callable[[Net], None], monkeypatch: pytest.MonkeyPatch) -> None:
    model = rolled()
    hide(model)
    monkeypatch.setattr(pruning, "rule_for", wrongly_known)
    _, report = as_much_as_possible(model)
    assert "parts.0.0" in report.left


def test_a_layer_that_must_stay_is_named_however_little_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the wide layer is enough: no plan for it takes anything from the narrow one, which must stay."""
    model = Net(lambda x, a, b, c: c(b(a(x).roll(5, 1))), block(32, 16), block(16, 128), block(128, 32))
    monkeypatch.setattr(pruning, "rule_for", wrongly_known)
    _, report = prune_channels(model, SHAPE, 0.05)
    assert {name for name, now in report.channels.items() if now.outputs < 128} == {
        "parts.1.0",
        "parts.1.1",
        "parts.2.0",
    }
    assert "of the largest off" in report.left["parts.0.0"]


@pytest.mark.parametrize(
    ("wrong", "blamed"), [("a", "a"), ("d", "d"), ("ad", "cd"), ("ab", "b"), ("cd", "d"), ("", "abcd"), ("x", "")]
)
def test_groups_to_blame_are_those_without_which_nothing_speaks_against_the_rest(
    wrong: str, blamed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is ``wrong`` together is objected to; where neither half of a plan is wrong alone the second is blamed."""
    monkeypatch.setattr(Oracle, "objection", lambda _, plan: "no" if set(wrong) <= set(plan) else "")
    plan = {name: np.array([0]) for name in "abcd"}
    assert Oracle.__new__(Oracle).offenders(plan) == dict.fromkeys(blamed, "no")


@pytest.mark.parametrize("shape", [SHAPE, (1, 3, 1, 1)], ids=str)
def test_a_part_that_only_training_runs_keeps_its_inputs(shape: tuple[int, ...]) -> None:
    """Even if the network does not train on a batch of ``shape``: of one value there are no statistics."""

    class Helped(Net):
        def __init__(self) -> None:
            super().__init__(lambda x, a, b: b(a(x)), *copy.deepcopy(TWO))
            self.helper = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            y = self.parts[0](self.stem(x))
            out: Tensor = self.head(self.parts[1](y).mean((2, 3)))
            return out + self.helper(y.mean((2, 3))) if self.training else out

    pruned, report = as_much_as_possible(Helped(), shape)
    assert "it does not compute in training (RuntimeError: mat1 and mat2 shapes" in report.left["parts.0.0"]
    assert pruned.train()(torch.zeros(SHAPE)).shape == (2, 10)


def test_any_answer_is_too_far_off_where_only_zeros_are_right() -> None:
    class Missed(Net):
        def __init__(self) -> None:
            super().__init__(lambda x, a, b: b(a(x)), *copy.deepcopy(TWO))

        def forward(self, x: Tensor) -> Tensor:
            y = self.parts[0](self.stem(x))
            out: Tensor = self.head(self.parts[1](y).mean((2, 3)))
            return out * (64 - y.shape[1])

    _, report = as_much_as_possible(Missed())
    assert report.left["parts.0.0"].startswith("its answers are inf of the largest off")


def test_answers_that_are_not_finite_cannot_be_compared() -> None:
    model = Net(lambda x, a, b: b(a(x)), *copy.deepcopy(TWO))
    nn.init.constant_(model.head.bias, float("inf"))
    with pytest.raises(
        StageFailed, match=r"answers to a batch of random numbers are not finite.*prune\.enabled = false"
    ):
        prune_channels(model, SHAPE, 0.2)


def test_what_is_off_is_told_as_a_share_of_the_largest_answer() -> None:
    subject = oracle._Subject(nn.Identity(), torch.float64, [4.0])
    told = oracle._difference([torch.tensor([4.0, 1.0])], [torch.tensor([4.0, 1.5])], subject, "of before")
    assert told == "its answers are 1.2e-01 of the largest off from those of before"
    assert oracle._difference([torch.tensor([4.0])], [torch.tensor([4.0])], subject, "of before") == ""


def test_random_weights_keep_what_flows_through_a_deep_network_near_one() -> None:
    layers = [nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()) for _ in range(16)]
    model = Net(lambda x, *parts: nn.Sequential(*parts)(x), *layers)
    network = resolve(trace_channels(model, torch.zeros(SHAPE), rule_for, 60), 1, SHAPE[0])
    (scale,) = Oracle.of(model, network, SHAPE).random.scales
    assert 0.1 < scale < 1000
