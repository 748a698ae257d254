"""What ``[teacher]`` may say, and what is said of a teacher that learned nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.config import Config, Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.stages.teacher import notes

from .support.planning import planned, rehearsed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.model=resnet19"], r"teacher: teacher\.model is 'resnet19', unknown; nearest valid name: 'resnet18'"),
        (["teacher.pretrained=DEFAULT"], r"teacher\.pretrained is 'DEFAULT'; 'resnet20' has no weights of that kind"),
        (
            ["teacher.model=timm:resnet18", "teacher.pretrained=A1"],
            r"teacher\.pretrained is 'A1'; for 'timm:resnet18' it must be 'DEFAULT'",
        ),
        (["teacher.checkpoint=none.pt"], r"teacher: checkpoint none\.pt does not exist; correct the path"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.unfreeze_epochs=[99]"], r"teacher: teacher\.unfreeze_epochs is \[99\]"),
    ],
)
def test_what_a_build_refuses_at_its_start(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, *overrides)


def test_a_checkpoint_that_does_not_fit_is_said_before_the_data_are_made(tmp_path: Path) -> None:
    import torch

    from dlx_deploy.nn.models.inputs import ImageInput
    from dlx_deploy.nn.models.registry import build_model

    spec, given = ImageInput(1, 8, 8), ["teacher.epochs=0", f"teacher.checkpoint={tmp_path / 'w.pt'}"]
    torch.save(build_model("resnet20", {"width": 2.0}, 10, spec).state_dict(), tmp_path / "w.pt")
    rehearsed(tmp_path, *given)
    with pytest.raises(ConfigError, match=r"teacher: .*w\.pt: does not fit the model"):
        rehearsed(tmp_path, *given, "teacher.model=resnet8")
    (tmp_path / "w.pt").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"teacher: .*w\.pt: no valid torch checkpoint"):
        rehearsed(tmp_path, *given)


@pytest.mark.parametrize(
    ("budgets", "top1", "said"),
    [
        (Gate(), 0.12, "not clearly more than always answering the largest class (10.00 %)"),
        (Gate(), 0.2, ""),
        (Gate(allow_chance=True), 0.12, ""),
        (Gate(min_accuracy=0.9), 0.8, "under gate.min_accuracy 0.9: what is built from it will hardly pass"),
        (Gate(min_accuracy=0.9), 0.88, ""),  # not clearly under it
        (Gate(), float("nan"), ""),
    ],
)
def test_a_teacher_that_learned_nothing(budgets: Gate, top1: float, said: str) -> None:
    metrics = {"validation_top1": top1, "validation_samples": 100.0, "validation_largest_class": 0.1}
    heard = notes(Config(gate=budgets), {}, metrics)
    assert len(heard) == bool(said)
    assert said in "".join(heard)


def test_a_record_of_an_older_version_says_nothing() -> None:
    assert not notes(Config(), {}, {"validation_top1": 0.1})
