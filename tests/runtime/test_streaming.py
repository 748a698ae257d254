from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.predictor import Predictor


class Counting:
    """Gives ``samples`` one by one, and counts how many were asked for."""

    def __init__(self, samples: Any) -> None:
        self.samples, self.asked = samples, 0

    def __iter__(self) -> Iterator[Any]:
        for sample in self.samples:
            self.asked += 1
            yield sample


@pytest.mark.parametrize("batch", [None, 1, 3, 50])
def test_each_sample_has_its_answer_in_order(predictor: Predictor, data: Any, batch: int | None) -> None:
    images = data[0][:8]
    expected = predictor.predict(images).logits
    answers = list(predictor.stream((image for image in images), batch=batch))
    assert [len(answer) for answer in answers] == [1] * 8
    np.testing.assert_allclose(np.concatenate([answer.logits for answer in answers]), expected, rtol=1e-6)


def test_no_more_is_read_than_is_run(predictor: Predictor, data: Any) -> None:
    source = Counting(data[0])
    answers = predictor.stream(source, batch=4)
    assert source.asked == 0
    next(answers)
    assert source.asked == 4
    for _ in range(4):
        next(answers)
    assert source.asked == 8


def test_files_and_arrays_may_take_turns(predictor: Predictor, data: Any, tmp_path: Path) -> None:
    Image.fromarray(data[0][1]).save(tmp_path / "dog.png")
    answers = predictor.stream([data[0][0], str(tmp_path / "dog.png"), data[0][2][None]], batch=3)
    assert [answer.labels for answer in answers] == [["cat"], ["dog"], ["owl"]]


def test_a_model_of_fixed_batch_size_waits_for_it(make_predictor: Any, helpers: Any, data: Any) -> None:
    fixed = make_predictor(model=helpers.tiny_model(batch=3), batch=3)
    source = Counting(data[0][:4])
    answers = fixed.stream(source)
    first = next(answers)
    assert source.asked == 3
    assert [answer.labels[0] for answer in (first, *answers)] == ["cat", "dog", "owl", "cat"]


def test_a_fault_comes_in_its_turn(predictor: Predictor, data: Any) -> None:
    answers = predictor.stream([data[0][0], data[0][0].astype(float)])
    assert next(answers).labels == ["cat"]
    with pytest.raises(InputError, match=r"images are float64\[6, 4, 3\]"):
        next(answers)


def test_what_cannot_be_streamed(predictor: Predictor, data: Any) -> None:
    for batch in (0, -1, 65_537):
        with pytest.raises(InputError, match=f"batch is {batch}; must be 1 or more, and at most 65536"):
            predictor.stream([], batch=batch)
    with pytest.raises(InputError, match="a sample holds 2 images; each must be one"):
        next(predictor.stream([data[0][:2]]))
    with pytest.raises(InputError, match=r"images are an iterator \(generator\); give a list, or use stream\(images\)"):
        predictor.predict(image for image in data[0])


def test_texts_are_padded_together() -> None:
    from .tasks.test_texts import TEXTS, predictor  # type: ignore[import-not-found]

    texts = predictor()
    expected = texts.predict(TEXTS).labels
    assert [answer.labels[0] for answer in texts.stream(iter(TEXTS), batch=3)] == expected
    with pytest.raises(InputError, match="bgr is for arrays of pixels, and the package reads texts"):
        texts.predict(TEXTS, bgr=True)
