"""What the fingerprints see: every file that decides a stage's bytes, and no comment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import dlx_deploy

from .fingerprints import Code, all_fingerprints

ROOT = Path(dlx_deploy.__file__).parent
BEFORE = all_fingerprints()


def touched(changed: Mapping[str, str]) -> set[str]:
    """The stages whose fingerprints ``changed`` files would alter."""
    after = all_fingerprints(changed)
    return {name for name in BEFORE if after[name] != BEFORE[name]}


def watching(part: str) -> set[str]:
    return {name for name, seen in BEFORE.items() if part in seen["code"]}


LOOKS_AT_EXPORTS = {"convert", "export", "prune"}
"""``prune`` where its goal is a latency: that of an exported network."""


def test_one_operator_for_another_in_the_rewriting_of_networks() -> None:
    text = (ROOT / "graph/passes/pooling.py").read_text()
    assert text.count("AveragePool") > 0
    assert touched({"graph/passes/pooling.py": text.replace("AveragePool", "MaxPool")}) == LOOKS_AT_EXPORTS


def test_one_operator_for_another_in_the_lowering_of_opsets() -> None:
    text = (ROOT / "graph/passes/opset.py").read_text()
    assert text.count('"Identity"') > 0
    seen = touched({"graph/passes/opset.py": text.replace('"Identity"', '"Relu"')})
    assert seen >= {"export"}
    assert not seen & {"data", "teacher", "logits", "distill"}


def test_a_file_that_is_shipped_and_that_no_stage_imports() -> None:
    text = (ROOT / "runtime/commands/main.py").read_text()
    assert touched({"runtime/commands/main.py": text + "\nEXTRA = 1\n"}) == {"package"}


def test_a_table_that_decides_bytes() -> None:
    text = (ROOT / "targets/kernels.toml").read_text()
    assert text.count("least_speedup = 1.0") == 1
    changed = {"targets/kernels.toml": text.replace("least_speedup = 1.0", "least_speedup = 2.0")}
    assert touched(changed) == {"compile", "qat", "quantize"}


@pytest.mark.parametrize(
    ("part", "stages"),
    [
        ("nn.weights.checkpoint", {"teacher", "distill", "prune", "logits", "export"}),
        ("nn.data.texts", {"data"}),
        ("graph.analysis.cost", {"export", "verify"}),
        ("graph.passes.half", {"quantize"}),
        ("graph.model", {"export", "quantize", "compile", "evaluate", "calibrate", "verify", "package"}),
        ("nn.training.optimizers", {"teacher", "distill", "prune"}),
        ("runtime.engine.api", {"compile"}),  # by name, in a process of its own
        ("runtime.statistics.drops", {"compile", "verify", "package"}),
        ("targets.roofline", {"verify"}),
        ("graph.execution.latency", {"compile", "verify"}),  # by the device that they are given
    ],
)
def test_who_rests_on_what(part: str, stages: set[str]) -> None:
    assert stages <= watching(f"dlx_deploy.{part}")


def test_no_stage_rests_on_everything() -> None:
    stages = [
        {part for part in seen["code"] if not part.startswith("dlx_deploy.runtime.")}  # a package ships all of it
        for seen in BEFORE.values()
    ]
    assert max(map(len, stages)) < 0.65 * len(set.union(*stages))
    assert watching("dlx_deploy.nn.pruning.channels") == {"prune"}
    assert not watching("dlx_deploy.pipeline.store") | watching("dlx_deploy.cli")


def test_what_only_refuses_does_not_count() -> None:
    assert not watching("dlx_deploy.stages.support.checks") | watching("dlx_deploy.stages.support.rehearsal")
    text = (ROOT / "stages/prune.py").read_text()
    assert touched({"stages/prune.py": text.replace("upstream.networks.values()", "()")}) == set()
    assert touched({"stages/prune.py": text.replace("> TOLERANCE", "< TOLERANCE")}) == {"prune"}
    assert "quantize" not in watching("dlx_deploy.nn.export.network")


def test_comments_docstrings_and_layout_do_not_count() -> None:
    text = (ROOT / "graph/passes/half.py").read_text()
    first = text.partition('"""')[2].partition('"""')[0]
    other = "# a word\n" + text.replace(first, "Other words.").replace("\n\n\n", "\n\n")
    assert touched({"graph/passes/half.py": other}) == set()


def test_of_the_configuration_only_the_tables_of_a_stage() -> None:
    path = "config/compression.py"
    text = (ROOT / path).read_text()
    assert text.count("reduce_macs: Fraction = 0.2") == 1
    assert touched({path: text.replace("reduce_macs: Fraction = 0.2", "reduce_macs: Fraction = 0.3")}) >= {"prune"}
    assert "quantize" not in touched({"config/compression.py": text.replace("reduce_macs", "take_macs")})


TOY = {
    "__init__.py": "",
    "start.py": "from dlx_deploy.top import helper\ndef run(job):\n    {call}\n",
    "top.py": "from dlx_deploy import far\ndef helper(): far.here()\ndef other():\n    from .lazy import f; f()\n",
    "far.py": "from dlx_deploy.deep import here, gone\n",
    "deep.py": "from .leaf import LEAF\ndef here(): return LEAF\ndef gone():\n    import dlx_deploy.never\n",
    "leaf.py": "LEAF = 1\n",
    "lazy.py": "import dlx_deploy.whole as w\ndef f(): return w\n",
    "whole.py": "def g():\n    from dlx_deploy import last\n",
    "last.py": "",
    "never.py": "",
    "kinds/__init__.py": "import dlx_deploy.effect\n",
    "kinds/a.py": "",
    "kinds/b.py": "from . import c\nNAME = c.NAME\n",
    "kinds/c.py": "NAME = 1\n",
    "effect.py": "from dlx_deploy.never import patch\npatch()\n",
    "types.py": "",
}
CHAIN = {"start", "top", "far", "deep", "leaf"}


@pytest.mark.parametrize(
    ("call", "reached"),
    [
        ("helper()", CHAIN),
        ("from dlx_deploy import top; top.other()", {"start", "top", "lazy", "whole", "last"}),
        ("import_module('dlx_deploy.kinds.b:NAME')", {"start", "kinds", "kinds.b", "kinds.c"}),
        ("import_module(f'dlx_deploy.kinds.{job}')", {"start", "kinds", "kinds.a", "kinds.b", "kinds.c"}),
        ("import_module(f'{__name__}.{job}')", {p[:-3] for p in TOY if "/" not in p and p != "__init__.py"}),
        ("import dlx_deploy.effect", {"start", "effect", "never"}),
        ("pass", {"start"}),
    ],
)
def test_what_a_name_reaches(tmp_path: Path, call: str, reached: set[str]) -> None:
    root = tmp_path / "dlx_deploy"
    (root / "kinds").mkdir(parents=True)
    for name, text in TOY.items():
        (root / name).write_text(text.format(call=call) if name == "start.py" else text)
    seen = {name.partition(".")[2] for name in Code(root).reached(("dlx_deploy.start", "run"))} - {""}
    assert reached <= seen
    if "__name__" not in call:
        assert seen - {"effect", "never"} <= reached | ({"top"} if "top" in call else set())
