from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.commands import predicting
from dlx_deploy.runtime.commands.bench import BenchOptions
from dlx_deploy.runtime.errors import BudgetMissed, Undecided
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.class_verdicts import Verification
from dlx_deploy.runtime.tasks.task import PredictOptions
from dlx_deploy.runtime.views import CommandView, Outcome, lines_of


@pytest.fixture
def folder(tmp_path: Path, data: Any, helpers: Any) -> Path:
    images, labels = data
    for i in range(60):
        path = tmp_path / "data" / helpers.labels[labels[i]] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(path)
    return tmp_path / "data"


def test_info(predictor: Predictor) -> None:
    outcome = commands.inspect(predictor.package)
    assert outcome.failure is None
    assert outcome.data["labels"] == ["cat", "dog", "owl"]
    assert outcome.data["digest"] == predictor.package.digest
    assert "files" not in outcome.data
    assert outcome.text.splitlines()[:3] == [
        "tiny 1.2.3 for any x86-64",
        "input    uint8[N, 6, 4, 3], NHWC, 0..255",
        "classes  3: cat, dog, owl",
    ]


def test_info_of_an_exact_package_with_a_latency_budget(make_predictor: Any, helpers: Any) -> None:
    budgets = {"max_drop": 0.01, "confidence": 0.9, "max_latency_p90_ms": 2.5}
    meta = helpers.metadata(budgets=budgets, execution={"exact_qdq": True})
    text = commands.inspect(make_predictor(metadata=meta).package).text
    assert "run in exact Q/DQ arithmetic" in text
    assert "accuracy drop 1 points at 0.9 confidence, p90 2.5 ms" in text


def test_predict(predictor: Predictor, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "BLOCK", 2)
    paths = [folder / "cat" / "000.png", folder / "dog" / "001.png", folder / "owl" / "002.png"]
    outcome = commands.predict(predictor, paths, PredictOptions(top=2))
    predictions = outcome.data["predictions"]
    assert [row["image"] for row in predictions] == [str(p) for p in paths]
    assert [(row["top"][0]["label"], row["top"][0]["class"]) for row in predictions] == [
        ("cat", 0),
        ("dog", 1),
        ("owl", 2),
    ]
    assert all(len(row["top"]) == 2 for row in predictions)
    assert outcome.text.splitlines()[1].startswith(f"{paths[1]}\tdog 0.")
    json.dumps(outcome.data)


def test_a_view_holds_typed_values(predictor: Predictor, folder: Path) -> None:
    assert commands.inspect(predictor.package).package is predictor.package
    paths = [folder / "cat" / "000.png", folder / "dog" / "001.png"]
    ((first, row), _) = commands.predict(predictor, paths).rows
    assert (first, row.data["top"][0]["label"]) == (str(paths[0]), "cat")
    assert commands.selftest(predictor).result.images == 4
    assert commands.bench(predictor, BenchOptions(rounds=3)).result.verdict is None
    verified = commands.verify(predictor, folder, commands.VerifyOptions()).result
    assert isinstance(verified, Verification)
    assert verified.accuracy == 1.0


def test_a_view_from_elsewhere_is_what_it_shows() -> None:
    view: CommandView = Outcome({"a": 1}, "one")
    assert (view.data, view.text, view.failure) == ({"a": 1}, "one", None)
    assert lines_of(["a\nb", "c\x1b"]) == "a\\nb\nc\\u001b"


def test_selftest(predictor: Predictor) -> None:
    outcome = commands.selftest(predictor)
    assert outcome.data["verdict"] == "pass"
    assert outcome.data["images"] == 4
    assert outcome.text.startswith("self-test passed: 4 golden inputs, every top-1 the same, logits within ")


def test_bench(predictor: Predictor) -> None:
    outcome = commands.bench(predictor, BenchOptions(rounds=40, max_ms={90: 1e-9}))
    assert isinstance(outcome.failure, BudgetMissed)
    assert outcome.data["verdict"] == "fail"
    assert outcome.data["package"]["name"] == "tiny"
    assert outcome.text.startswith(f"measured on {outcome.data['machine']['label']} (package built for cpu-x86_64)")
    assert "budget 1e-09 ms: missed" in outcome.text


def test_verify(predictor: Predictor, folder: Path) -> None:
    passed = commands.verify(predictor, folder, commands.VerifyOptions(max_drop=0.1))
    assert (passed.failure, passed.data["verdict"]["verdict"]) == (None, "pass")
    assert passed.text.startswith(
        "teacher 100.00 %, package 100.00 % of 60 images (0 only the teacher has right, 0 only"
    )
    undecided = commands.verify(predictor, folder, commands.VerifyOptions())
    assert isinstance(undecided.failure, Undecided)


def test_verify_against_a_given_teacher(predictor: Predictor, folder: Path, tmp_path: Path, helpers: Any) -> None:
    (tmp_path / "t.onnx").write_bytes(helpers.tiny_model(shift=1))
    outcome = commands.verify(predictor, folder, commands.VerifyOptions(teacher=tmp_path / "t.onnx", threads=1))
    assert (outcome.data["c"], outcome.data["teacher_accuracy"], outcome.failure) == (60, 0.0, None)


def test_verify_says_when_labels_changed(make_predictor: Any, data: Any, folder: Path, helpers: Any) -> None:
    images, labels = data
    other = make_predictor(reference=helpers.tiny_reference(images, np.zeros_like(labels), labels))
    outcome = commands.verify(other, folder, commands.VerifyOptions(max_drop=0.1))
    assert "40 images have another label than when the package was built" in outcome.text
