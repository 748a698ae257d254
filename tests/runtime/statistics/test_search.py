from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.statistics.search import fewest


@given(st.integers(0, 500), st.integers(1, 10_000))
def test_it_is_the_smallest_that_is_enough(above: int, more: int) -> None:
    asked: list[int] = []

    def enough(count: int) -> bool:
        asked.append(count)
        return count >= above + more

    assert fewest(enough, above) == above + more
    assert min(asked) > above
    assert len(asked) < 40  # no walk
