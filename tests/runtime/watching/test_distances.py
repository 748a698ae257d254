import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.watching.distances import energy, kolmogorov_smirnov

counts = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)


def shares(of: list[int]) -> np.ndarray:
    return np.array(of) / sum(of)


@given(counts, counts)
def test_they_are_what_their_definitions_say(a: list[int], b: list[int]) -> None:
    one, other = shares(a), shares(b)
    apart = 1 - np.eye(4)  # of any two classes
    squared = 2 * one @ apart @ other - one @ apart @ one - other @ apart @ other
    assert np.isclose(energy(one, other), np.sqrt(max(squared, 0) / 2), atol=1e-6)
    assert np.isclose(kolmogorov_smirnov(one, other), np.abs(one.cumsum() - other.cumsum()).max())


@given(counts, counts, counts)
def test_a_way_round_is_never_shorter(a: list[int], b: list[int], c: list[int]) -> None:
    """The thresholds are sums of two bounds: that is right for metrics alone."""
    one, middle, other = shares(a), shares(b), shares(c)
    for far in (energy, kolmogorov_smirnov):
        assert far(one, other) <= far(one, middle) + far(middle, other) + 1e-7


def test_many_windows_are_judged_at_once() -> None:
    windows = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    reference = np.array([0.5, 0.5, 0.0])
    assert kolmogorov_smirnov(windows, reference).tolist() == [0, 1]
    np.testing.assert_allclose(energy(windows, reference), [0, np.sqrt(0.75)])
