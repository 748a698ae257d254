from __future__ import annotations

import numpy as np
import pytest

from dlx_deploy.runtime.tasks.arrays import Tensor
from dlx_deploy.runtime.tasks.sketches import SIZE, hashed, sketch_tensors, sketched

SMALL, LARGE = Tensor("logits", "float32", (10,)), Tensor("maps", "float32", (3, 20, 21), "NCHW")
WHOLE, OPEN = Tensor("classes", "int64", (4,)), Tensor("states", "float32", ("length", 8))


def test_only_numbers_of_a_known_size_are_sketched() -> None:
    found = sketch_tensors([SMALL, LARGE, WHOLE, OPEN])
    assert found == (Tensor("logits", "float32", (10,)), Tensor("maps", "float32", (SIZE,)))


def test_a_small_output_is_its_own_sketch() -> None:
    values = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    np.testing.assert_array_equal(sketched({"logits": values}, [SMALL])["logits"], values)


@pytest.mark.parametrize("where", [np.s_[:], np.s_[:, 1], np.s_[:, :, 3], np.s_[:, 2, 5, 7]])
def test_a_difference_keeps_its_length_whatever_it_looks_like(where: object) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 3, 20, 21)).astype(np.float32)
    other = values.copy()
    other[where] += rng.normal(1.0, 0.5, size=other[where].shape)  # type: ignore[index]
    one, two = (sketched({"maps": each}, [LARGE])["maps"] for each in (values, other))
    wanted = ((other - values) ** 2).reshape(300, -1).sum(axis=1).mean()
    assert ((two - one) ** 2).sum(axis=1).mean() == pytest.approx(wanted, rel=0.15)


def test_the_hash_is_what_the_format_says() -> None:
    def one(x: int) -> int:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = ((x ^ (x >> shift)) * factor) % 2**32
        return x ^ (x >> 16)

    assert hashed(1000).tolist() == [one(i) for i in range(1000)]
    assert abs(float((hashed(100_000) & 1).mean()) - 0.5) < 0.01
