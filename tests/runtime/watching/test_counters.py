import threading

import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.watching.counters import MOST_KINDS, OTHER, SECONDS_BOUNDS, Counters, kind_of


def test_what_is_counted_is_in_the_snapshot_and_a_snapshot_does_not_change() -> None:
    counters = Counters()
    empty = counters.snapshot()
    counters.request(100)
    counters.answer(3, 20)
    counters.ran(3, 0.25)
    counters.error(kind_of(InputError("no")))
    seen = counters.snapshot()
    assert (empty.requests, empty.errors, empty.batch_sizes.count) == (0, {}, 0)
    assert (seen.requests, seen.answers, seen.received_bytes, seen.sent_bytes) == (1, 3, 100, 20)
    assert seen.errors == {"InputError": 1}
    assert seen.batch_sizes.counts[:4] == (0, 0, 1, 0)  # of at most 1, 2, 4, 8
    assert seen.batch_sizes.to_dict()["sum"] == 3


def test_a_stage_is_timed_also_where_it_raises() -> None:
    ticks = iter([1.0, 1.003, 2.0, 14.0])
    counters = Counters(lambda: next(ticks))
    with counters.timed("read"):
        pass
    with pytest.raises(KeyError), counters.timed("read"):
        raise KeyError
    read = counters.snapshot().stages["read"]
    assert read.total == pytest.approx(12.003)
    assert read.counts[-1] == 1  # 12 s is above every bound
    assert read.counts[SECONDS_BOUNDS.index(0.005)] == 1


def test_kinds_of_errors_do_not_grow_without_an_end() -> None:
    counters = Counters()
    for i in range(MOST_KINDS + 5):
        counters.error(f"E{i}")
    counters.error("E0")
    errors = counters.snapshot().errors
    assert len(errors) == MOST_KINDS + 1
    assert errors[OTHER] == 5
    assert errors["E0"] == 2


def test_no_count_is_lost_between_threads() -> None:
    counters = Counters()

    def work() -> None:
        for _ in range(2000):
            counters.request(1)
            counters.took("model", 0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    seen = counters.snapshot()
    assert (seen.requests, seen.received_bytes, seen.stages["model"].count) == (8000, 8000, 8000)
