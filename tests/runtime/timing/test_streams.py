from __future__ import annotations

import threading

import pytest

from dlx_deploy.runtime.timing.sampling import Sampling
from dlx_deploy.runtime.timing.streams import sample_streams


def test_streams_are_in_flight_together() -> None:
    """No call ends before one of each stream has begun."""
    begun, lock, threads = set[int](), threading.Lock(), set[int]()
    all_begun = threading.Event()

    def call(stream: int) -> None:
        with lock:
            begun.add(stream)
            threads.add(threading.get_ident())
            if len(begun) == 3:
                all_begun.set()
        assert all_begun.wait(20)

    seen = sample_streams([lambda i=i: call(i) for i in range(3)], Sampling(50, warmup=2))
    assert len(threads) == 3
    assert len(seen.timings["predict"]) >= 50
    assert (seen.warmup_rounds, seen.cut, seen.seconds > 0) == (2, False, True)


@pytest.mark.parametrize("fails_at", [0, 7])
def test_what_a_stream_raises_ends_all(fails_at: int) -> None:
    calls = iter(range(1000))

    def call() -> None:
        if next(calls) >= fails_at:
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        sample_streams([call, lambda: None], Sampling(10**6, warmup=3))


def test_streams_end_in_time() -> None:
    pause = threading.Event()
    seen = sample_streams([lambda: pause.wait(0.001)], Sampling(10**6, warmup=0, max_s=0.1))
    assert seen.cut
    assert seen.timings["predict"]
