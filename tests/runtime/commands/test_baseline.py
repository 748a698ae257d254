"""A package against the one that was released before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.commands.baseline import baseline_predictor
from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble
from dlx_deploy.runtime.package.trust import Trust
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification

from .test_verify import write_folder

LABELS = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Path:
    return write_folder(tmp_path_factory.mktemp("labelled"), *data, LABELS)


def packed(path: Path, helpers: Any, data: Any, **changes: Any) -> str:
    write_archive(path, assemble(helpers.tiny_contents(*data, **changes)))
    return str(path)


def test_a_package_as_good_as_the_last_release_passes(
    dlx: Path, folder: Path, helpers: Any, data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = packed(tmp_path / "old.dlx", helpers, data, metadata=helpers.metadata(version="1.0.0"))
    assert main(["verify", f"--data={folder}", f"--baseline={old}", "--json"], str(dlx)) == 0
    found = json.loads(capsys.readouterr().out)["baseline"]
    assert (found["package"]["version"], found["reference"]) == ("1.0.0", "baseline")
    assert len(found["package"]["digest"]) == 64
    assert found["verdict"]["verdict"] == "pass"
    assert found["flips"] == {"lost": 0, "gained": 0, "changed": 0, "samples": 300}
    assert main(["verify", f"--data={folder}", f"--baseline={old}"], str(dlx)) == 0
    text = capsys.readouterr().out
    assert "baseline: tiny 1.0.0, " in text
    assert "baseline 100.00 %, package 100.00 % of 300 images (0 only the baseline has right" in text


def test_a_regression_that_the_teacher_hides_is_found(
    folder: Path, dlx: Path, helpers: Any, data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher is as broken as the package, so beside it there is no drop; the last release was right."""
    images, labels = data
    broken = {"model": helpers.tiny_model(shift=1), "golden": np.roll(helpers.expected_logits(images[:4]), 1, axis=1)}
    table = helpers.tiny_reference(images, labels, (labels + 1) % 3)
    new = packed(tmp_path / "new.dlx", helpers, data, reference=table, **broken)
    assert main(["verify", f"--data={folder}"], new) == 0
    assert main(["verify", f"--data={folder}", f"--baseline={dlx}"], new) == 3
    seen = capsys.readouterr()
    assert "error: against the baseline tiny 1.2.3: accuracy drop 100.00 points on 300 samples" in seen.err
    assert "(300 only the baseline has right, 0 only the package)" in seen.out
    assert main(["verify", f"--data={folder}", f"--baseline={new}"], str(dlx)) == 0  # better than it is no regression


def test_a_regression_has_a_budget_of_its_own(
    dlx: Path, folder: Path, helpers: Any, data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = packed(tmp_path / "old.dlx", helpers, data)
    asked = ["verify", f"--data={folder}", f"--baseline={old}"]
    assert main([*asked, "--max-regression=0.001"], str(dlx)) == 6
    assert "against the baseline tiny 1.2.3: accuracy drop 0.00 points" in capsys.readouterr().err
    assert main([*asked, "--max-regression=2"], str(dlx)) == 2
    assert "the accuracy budget is 2.0; must be at least 0 and under 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("order", "its labels is ['owl', 'dog', 'cat'], here it is ['cat', 'dog', 'owl']"),
        ("names", "its labels is ['cat', 'dog', 'fox'], here it is"),
        ("framing", "its preprocessing is Framing("),
    ],
)
def test_packages_that_promise_something_else_are_refused(
    change: str,
    text: str,
    dlx: Path,
    folder: Path,
    helpers: Any,
    data: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = {"order": LABELS[::-1], "names": ["cat", "dog", "fox"]}.get(change, LABELS)
    framing = Framing(6, 4, 3, "crop") if change == "framing" else Framing(6, 4, 3)
    changes = {"task": image_classification(framing, labels)}
    if change == "framing":
        kept = {"resize": "crop", "interpolation": "bilinear", "color_order": "rgb", "fill": [0], "resize_size": [6, 4]}
        changes["metadata"] = helpers.metadata(preprocessing={**helpers.metadata()["preprocessing"], **kept})
    old = packed(tmp_path / "old.dlx", helpers, data, **changes)
    assert main(["verify", f"--data={folder}", f"--baseline={old}"], str(dlx)) == 2
    err = capsys.readouterr().err
    assert text in err
    assert "a baseline is compared answer by answer, so it must read and answer the same" in err


def test_a_baseline_that_is_no_package_is_refused(
    dlx: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.dlx").write_bytes(b"no zip")
    assert main(["verify", f"--data={folder}", f"--baseline={tmp_path / 'old.dlx'}"], str(dlx)) == 2
    assert "error: the baseline: " in capsys.readouterr().err
    assert main(["verify", f"--data={folder}", f"--baseline={tmp_path / 'none.dlx'}"], str(dlx)) == 2
    assert "error: the baseline: " in capsys.readouterr().err


def test_where_signatures_are_asked_for_a_baseline_has_one_too(dlx: Path, predictor: Predictor, tmp_path: Path) -> None:
    trust = Trust(public_key=tmp_path / "key.pem", signature=tmp_path / "of-the-new-package.sig")
    with pytest.raises(PackageError, match=r"the baseline: .*tiny\.dlx.*sig"):
        baseline_predictor(predictor, dlx, predictor.options, trust)
