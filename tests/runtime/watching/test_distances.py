import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from dlx_deploy.runtime.watching.distances import jensen_shannon, kolmogorov_smirnov

counts = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)


def shares(of: list[int]) -> np.ndarray:
    return np.array(of) / sum(of)


@given(counts, counts)
def test_they_are_what_the_library_says(a: list[int], b: list[int]) -> None:
    one, other = shares(a), shares(b)
    assert np.isclose(jensen_shannon(one, other), jensenshannon(one, other, base=2), atol=1e-6)
    assert np.isclose(kolmogorov_smirnov(one, other), np.abs(one.cumsum() - other.cumsum()).max())


@given(counts, counts, counts)
def test_a_way_round_is_never_shorter(a: list[int], b: list[int], c: list[int]) -> None:
    """The thresholds are sums of two bounds: that is right for metrics alone."""
    one, middle, other = shares(a), shares(b), shares(c)
    for far in (jensen_shannon, kolmogorov_smirnov):
        assert far(one, other) <= far(one, middle) + far(middle, other) + 1e-7


def test_many_windows_are_judged_at_once() -> None:
    windows = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    reference = np.array([0.5, 0.5, 0.0])
    assert kolmogorov_smirnov(windows, reference).tolist() == [0, 1]
    assert jensen_shannon(windows, reference).tolist() == [0, 1]
