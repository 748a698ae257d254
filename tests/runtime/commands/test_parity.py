"""A backend that is wrong on average by little, or on a few samples alone, is found; one that rounds is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.backends.choice import Backend
from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.commands.parity import Parity, ParityResult, check_parity, noise_db
from dlx_deploy.runtime.commands.verify import verify_package
from dlx_deploy.runtime.errors import InputError, PackageError, SelfTestFailed
from dlx_deploy.runtime.package.contents import assemble, parse_package
from dlx_deploy.runtime.package.parity import DECISIONS, ParityBounds, ParityTable
from dlx_deploy.runtime.predictor import Predictor

BOUNDS = ParityBounds(sqnr_db=26.0, worst_db=18.0, differing=0.02)
Wrong = Callable[[np.ndarray], np.ndarray]


def table_of(images: np.ndarray, helpers: Any, **changes: Any) -> ParityTable:
    answers = helpers.expected_logits(images)
    digests = helpers.tiny_task().inputs.digests({"images": images})
    decisions = answers.argmax(axis=1).astype(np.int32)[:, None]
    return replace(ParityTable(digests, {"logits": answers}, decisions, BOUNDS), **changes)


class Broken:
    """The session of a backend whose answers are changed by ``wrong``, float32[n, 3] to the same."""

    def __init__(self, session: Any, wrong: Wrong) -> None:
        self._session, self._wrong = session, wrong

    def run(self, names: Any, feeds: Any) -> list[np.ndarray]:
        (logits,) = self._session.run(names, feeds)
        return [self._wrong(logits).astype(np.float32)]


@pytest.fixture
def broken(make_predictor: Any, data: Any, helpers: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A predictor of the tiny package, with answers to all 300 images, on a backend that is wrong."""

    def make(wrong: Wrong) -> Predictor:
        predictor = make_predictor(parity=table_of(data[0], helpers))
        backend = predictor.backend
        session = Broken(backend.session, wrong)
        monkeypatch.setattr(predictor, "backend", Backend(backend.name, backend.record, session))
        monkeypatch.setattr(predictor, "_run", session.run)
        return predictor  # type: ignore[no-any-return]

    return make


def perturbed(logits: np.ndarray) -> np.ndarray:
    return logits * [1, 0.85, 1]  # one channel of three, still first where it was


def some_swapped(logits: np.ndarray) -> np.ndarray:
    wrong = logits.copy()
    wrong[:2] = logits[:2, ::-1]  # two of each block
    return wrong


def noisy(logits: np.ndarray) -> np.ndarray:
    return logits + np.random.default_rng(0).normal(0, 0.004, logits.shape)  # signals are 0.6 apart


def test_the_same_bits_agree(broken: Any, data: Any) -> None:
    found = check_parity(broken(lambda logits: logits), {"images": data[0]})
    assert (found.samples, found.known, found.differing, found.failure()) == (300, 300, 0, None)
    assert found.sqnr_db > 100
    assert found.describe().startswith("parity with the builder: onnxruntime-cpu agrees on 300 of the 300 images")


def test_honest_noise_passes(broken: Any, data: Any) -> None:
    found = check_parity(broken(noisy), {"images": data[0]})
    assert found.failure() is None
    assert 30 < found.sqnr_db < 50
    assert found.sqnr_db > found.worst_db > 18


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (perturbed, r"onnxruntime-cpu does not answer as the builder did: SQNR is \d+\.\d dB; must be at least 26\.0"),
        (some_swapped, r"the furthest of the images is at -?\d+\.\d dB; must be at least 18\.0"),
    ],
)
def test_a_miscompiled_engine_is_found_though_it_is_accurate(
    wrong: Wrong, message: str, broken: Any, data: Any
) -> None:
    predictor, (images, labels) = broken(wrong), data
    budgets = replace(predictor.package.budgets, max_drop=0.04)
    judged = verify_package(predictor, {"images": images}, {"label": labels}, budgets).judgement
    assert judged.failure() is None  # the gate alone is content
    found = check_parity(predictor, {"images": images})
    with pytest.raises(SelfTestFailed, match=message):
        raise found.failure()  # type: ignore[misc]
    assert found.describe().startswith("parity with the builder: onnxruntime-cpu differs on 300")


def test_more_other_decisions_than_chance_explains(broken: Any, data: Any) -> None:
    near = np.array([0.0, 0.0, 1e-9])
    found = check_parity(broken(lambda logits: np.round(logits * 0) + near), {"images": data[0]})
    assert (found.differing, found.most_differing) == (200, 15)  # P(16 or more of 300 at 2 %) is under a thousandth
    assert any("200 of 300 images are decided otherwise; at most 15 may be" in fault for fault in found.faults)


def test_answers_that_are_no_numbers(broken: Any, data: Any) -> None:
    with pytest.raises(SelfTestFailed, match="onnxruntime-cpu gives NaN or infinite logits"):
        check_parity(broken(lambda logits: logits * np.nan), {"images": data[0][:5]})


def test_what_a_package_does_not_know(broken: Any, predictor: Predictor, data: Any, helpers: Any) -> None:
    fresh, _ = helpers.make_images(20, seed=9)
    with pytest.raises(InputError, match="to 300 images, and none of the 20 given is among them"):
        check_parity(broken(noisy), {"images": fresh})
    with pytest.raises(InputError, match="the package carries no answers to compare with"):
        check_parity(predictor, {"images": fresh})
    found = check_parity(broken(noisy), {"images": np.concatenate([fresh, data[0][:7], data[0][:7]])})
    assert found.samples == 7  # each once, strangers not at all
    assert "7 show little" in found.describe()


def folder_of(root: Path, data: Any, helpers: Any, count: int) -> Path:
    for i, (image, k) in enumerate(zip(data[0][:count], data[1][:count], strict=True)):
        (root / helpers.labels[k]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / helpers.labels[k] / f"{i:03}.png")
    return root


def test_commands_say_it(broken: Any, data: Any, helpers: Any, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", data, helpers, 60)
    good, bad = broken(noisy), broken(perturbed)
    monkeyed = replace(bad.package, golden_outputs={"logits": perturbed(bad.package.golden_outputs["logits"])})
    bad.package = monkeyed  # a self-test that this engine passes
    good.package = replace(good.package, tolerances={"logits": replace(good.package.tolerances["logits"], atol=0.1)})
    assert commands.selftest(good).parity is None
    passed = commands.selftest(good, folder)
    assert (passed.failure, passed.data["verdict"], passed.data["parity"]["samples"]) == (None, "pass", 60)
    assert "agrees on 60 of the 300 images" in passed.text
    json.dumps(passed.data)
    failed = commands.selftest(bad, folder)
    assert (failed.data["verdict"], failed.data["parity"]["verdict"]) == ("fail", "fail")
    assert failed.failure.exit_code == 5
    options = commands.VerifyOptions(max_drop=0.1)
    verified = commands.verify(bad, folder, options)
    assert (verified.result.failure(), verified.failure.exit_code) == (None, 5)
    assert verified.text.splitlines()[-1].startswith("parity with the builder: onnxruntime-cpu differs")
    assert commands.verify(good, folder, options).failure is None
    missed = commands.verify(bad, folder, commands.VerifyOptions(max_drop=1e-4))
    assert missed.failure.exit_code == 5  # undecided: too few images, and found to be wrong all the same


def test_exact_arithmetic_has_bounds_of_its_own(broken: Any, data: Any) -> None:
    predictor = broken(noisy)
    table = replace(predictor.package.parity, exact=ParityBounds(50, 42, 0.005))
    predictor.package = replace(predictor.package, exact_qdq=True, parity=table)
    found = check_parity(predictor, {"images": data[0]})
    assert found.bounds == table.exact
    assert any("must be at least 50.0" in fault for fault in found.faults)


def test_noise_is_held_against_what_tells_samples_apart() -> None:
    answers = np.array([[-1.0], [1.0]], np.float32)
    for constant in (0, 1000):
        assert noise_db([0.01, 0.01], answers + np.float32(constant)) == pytest.approx((20, 20))
    assert noise_db([0, 0], answers) == (200, 200)
    assert noise_db([1, 1], answers * 0) == (-200, -200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: replace(table, answers={"logits": table.answers["logits"][:, :2]}),
            r"'parity/answers/logits.npy'",
        ),
        (lambda table: replace(table, answers={"logits": table.answers["logits"] * np.nan}), "holds NaN or infinite"),
        (lambda table: replace(table, decisions=table.decisions[:-1]), r"'parity/decisions.npy' is int32\[299, 1\]"),
        (lambda table: replace(table, other=ParityBounds(-1, 0, 0.1)), "parity.bounds.other.sqnr_db is -1"),
        (lambda table: replace(table, exact=ParityBounds(1, 0, 1.5)), "parity.bounds.exact.differing is 1.5"),
    ],
)
def test_a_damaged_table_is_refused(change: Any, message: str, data: Any, helpers: Any) -> None:
    contents = helpers.tiny_contents(*data, parity=change(table_of(data[0], helpers)))
    with pytest.raises(PackageError, match=message):
        assemble(contents)


def test_a_table_of_another_task(broken: Any, data: Any, helpers: Any) -> None:
    predictor = broken(noisy)
    table = table_of(data[0], helpers, decisions=np.zeros((300, 2), np.int32))
    predictor.package = replace(predictor.package, parity=table)
    with pytest.raises(PackageError, match=r"'parity/decisions.npy' has 2 decisions for a sample; the task makes 1"):
        check_parity(predictor, {"images": data[0][:3]})


def test_a_task_that_decides_nothing_is_judged_by_noise(broken: Any, data: Any, helpers: Any) -> None:
    contents = helpers.tiny_contents(*data, parity=table_of(data[0], helpers, decisions=None))
    files = assemble(contents)
    assert DECISIONS not in files
    predictor = broken(noisy)
    predictor.package = parse_package(files, "tiny.dlx")
    found = check_parity(predictor, {"images": data[0]})
    assert isinstance(found, ParityResult)
    assert (found.differing, found.failure()) == (None, None)


def test_samples_that_are_passed_over_do_not_shift_the_others(broken: Any, data: Any, helpers: Any) -> None:
    fresh, labels = helpers.make_images(9, seed=9)
    images, wanted = np.concatenate([fresh, data[0]]), np.concatenate([labels, data[1]])
    predictor = broken(lambda logits: logits)
    parity = Parity(predictor, predictor.package.parity)
    verify_package(predictor, {"images": images}, {"label": wanted}, parity=parity)
    found = parity.result()
    assert found is not None
    assert (found.samples, found.failure()) == (300, None)
