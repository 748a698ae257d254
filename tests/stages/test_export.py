"""What ``[export]`` may say, and which step exports what."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError, DlxError
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target

from .support.planning import planned


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["export.opset=99"], r"export\.opset is 99; rule: 13 to 20, the newest that jetson-orin-nano-8gb reads"),
        (["export.opset=12"], r"export\.opset is 12; rule: 13 to 20"),
        (["export.length=fixed"], r"export\.length is 'fixed', and data\.kind 'digits' has images; leave it out"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "target", "message"),
    [
        (["export.opset=17"], "jetson-nano", r"export\.opset is 17; rule: 13 to 13, the newest that jetson-nano reads"),
    ],
)
def test_what_a_plan_refuses_of_a_target(tmp_path: Path, overrides: list[str], target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides, target=target)


@pytest.mark.parametrize(("target", "length"), [("jetson", "fixed"), ("rpi5", "dynamic")])
def test_texts_have_one_length_where_an_engine_is_built(target: str, length: str) -> None:
    texts = ["data.kind=docstrings", "teacher.model=transformer", "distill.model=transformer"]
    steps = steps_for(load_config(None, texts), load_target(target).profile)
    exports = {step.name: step.params for step in steps if step.stage.name == "export"}
    assert list(exports) == ["export-teacher", "export-student", "export-pruned"]
    assert {params.length for params in exports.values()} == {length}  # type: ignore[attr-defined]
    steps = steps_for(load_config(None), load_target(target).profile)
    assert {step.params.length for step in steps if step.stage.name == "export"} == {"auto"}  # type: ignore[attr-defined]


def test_every_refusal_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DlxError) as caught:
        planned(tmp_path, "export.opset=99")
    assert caught.value.exit_code == 2
