"""Many callers before one model: who is run with whom, who is refused, and that nobody is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.backends.table import BACKENDS, BackendOptions
from dlx_deploy.runtime.errors import Busy, Expired, InputError, PackageError, Stopped
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.serving.calls import LEADING, WAITING, Call, Ran
from dlx_deploy.runtime.serving.feeds import Joiner
from dlx_deploy.runtime.serving.line import Line
from dlx_deploy.runtime.serving.queue import MicroBatcher, usual_workers
from dlx_deploy.runtime.tasks.arrays import Tensor
from dlx_deploy.runtime.tasks.text_inputs import TextInputs, Tokens

PATIENCE_S = 30.0
POISON = 251


class FakeClock:
    """Time stands still but for ``advance``; ``begun`` counts the waits, so that a test knows when callers wait."""

    def __init__(self) -> None:
        self.time, self.begun = 0.0, 0
        self.moved = threading.Condition()

    def now(self) -> float:
        return self.time

    def wait(self, signal: threading.Lock, timeout_s: float | None) -> bool:
        until = None if timeout_s is None else self.time + timeout_s
        with self.moved:
            self.begun += 1
            self.moved.notify_all()
        while not signal.acquire(timeout=0.005):
            if until is not None and self.time >= until:
                return False
        return True

    def advance(self, seconds: float) -> None:
        self.time += seconds

    def until(self, waits: int) -> None:
        with self.moved:
            assert self.moved.wait_for(lambda: self.begun >= waits, PATIENCE_S)


class Model:
    """A predictor whose runs a test holds at its gate. ``runs``: the first pixel of each sample of each run."""

    def __init__(self, predictor: Predictor) -> None:
        self.runs: list[list[int]] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.faults: list[BaseException | None] = []
        self.predictor = predictor.through(self.wrap)

    def wrap(self, run: Any) -> Any:
        def gated(names: Any, feeds: Any) -> Any:
            self.runs.append(feeds["images"][:, 0, 0, 0].tolist())
            self.entered.set()
            assert self.gate.wait(PATIENCE_S)
            fault = self.faults.pop(0) if self.faults else None
            if fault is not None:
                raise fault
            if POISON in self.runs[-1]:
                raise RuntimeError("not these")
            return run(names, feeds)

        return gated


@pytest.fixture
def model(predictor: Predictor) -> Model:
    return Model(predictor)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def feeds(*first: int) -> dict[str, np.ndarray]:
    """A sample for each number, told apart by its first pixel."""
    images = np.random.default_rng(first).integers(0, 200, (len(first), 6, 4, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = first
    return {"images": images}


@pytest.fixture
def crowd(model: Model, clock: FakeClock, pool: ThreadPoolExecutor) -> Callable[..., list[Future[Any]]]:
    """Callers behind one whose run is held at the gate; each waits before the next comes."""

    def call(queue: MicroBatcher, *calls: Any, timeout_s: float | None = None) -> list[Future[Any]]:
        model.gate.clear()
        futures = [pool.submit(queue.submit, feeds(0))]
        assert model.entered.wait(PATIENCE_S)
        begun = clock.begun
        for i, one in enumerate(calls):
            futures.append(pool.submit(queue.submit, one, timeout_s))
            clock.until(begun + i + 1)
        return futures

    return call


def results(futures: list[Future[Any]]) -> list[Any]:
    return [future.exception(PATIENCE_S) or future.result() for future in futures]


def test_a_lone_caller_is_run_at_once_and_by_itself(model: Model, clock: FakeClock, predictor: Predictor) -> None:
    queue = MicroBatcher(model.predictor, clock=clock)
    given = feeds(1, 2)
    np.testing.assert_array_equal(queue.submit(given)["logits"], predictor.run(given)["logits"])
    assert (model.runs, clock.begun, queue.waiting) == ([[1, 2]], 0, 0)


def test_who_waits_is_run_together_in_order_and_to_the_same_bits(
    model: Model, clock: FakeClock, predictor: Predictor, crowd: Any
) -> None:
    seen: list[Ran] = []
    queue = MicroBatcher(model.predictor, max_batch=4, observe=seen.append, clock=clock)
    calls = [feeds(1), feeds(2, 3), feeds(4), feeds(5), feeds(6)]
    futures = crowd(queue, *calls)
    assert queue.waiting == 6
    clock.advance(2.0)
    model.gate.set()
    for given, outputs in zip([feeds(0), *calls], results(futures), strict=True):
        np.testing.assert_array_equal(outputs["logits"], predictor.run(given)["logits"])
    assert model.runs == [[0], [1, 2, 3, 4], [5, 6]]
    assert sorted(one.samples for one in seen) == [1, 2, 4]
    assert [one.waited_s for one in seen if one.samples == 4] == [(2.0, 2.0, 2.0)]


def test_a_call_larger_than_a_batch_is_run_by_itself_in_blocks(model: Model, predictor: Predictor) -> None:
    given = feeds(1, 2, 3, 4, 5)
    outputs = MicroBatcher(model.predictor, max_batch=2).submit(given)
    np.testing.assert_array_equal(outputs["logits"], predictor.run(given)["logits"])
    assert model.runs == [[1, 2], [3, 4], [5]]


def test_no_more_wait_than_may(model: Model, clock: FakeClock, crowd: Any) -> None:
    queue = MicroBatcher(model.predictor, capacity=3, clock=clock)
    futures = crowd(queue, feeds(1, 2))
    with pytest.raises(Busy, match=r"^2 samples wait, and at most 3 may; try again later$"):
        queue.submit(feeds(3, 4))
    with pytest.raises(InputError, match=r"^4 samples are in one call; at most 3 may wait: give fewer$"):
        queue.submit(feeds(3, 4, 5, 6))
    model.gate.set()
    assert [len(outputs["logits"]) for outputs in results(futures)] == [1, 2]
    queue.submit(feeds(3, 4))


def test_what_is_late_is_not_run(model: Model, clock: FakeClock, crowd: Any) -> None:
    queue = MicroBatcher(model.predictor, clock=clock)
    first, late = crowd(queue, feeds(1), timeout_s=2.0)
    clock.advance(3.0)
    rule = r"^no answer within 3 s: it waited for others, and was not run; allow more time, or ask less often$"
    with pytest.raises(Expired, match=rule):
        late.result(PATIENCE_S)
    assert queue.waiting == 0
    model.gate.set()
    assert len(first.result(PATIENCE_S)["logits"]) == 1
    assert model.runs == [[0]]


def test_who_is_late_while_the_model_runs_waits_no_longer_and_the_others_are_answered(
    model: Model, clock: FakeClock, crowd: Any, pool: ThreadPoolExecutor
) -> None:
    queue = MicroBatcher(model.predictor, clock=clock)
    crowd(queue, feeds(1))
    late = pool.submit(queue.submit, feeds(2), 2.0)
    clock.until(2)
    model.entered.clear()
    hold, model.gate = model.gate, threading.Event()
    hold.set()  # the first run ends; the second, of the two who wait, is held
    assert model.entered.wait(PATIENCE_S)
    clock.advance(3.0)
    with pytest.raises(Expired, match="the model still ran"):
        late.result(PATIENCE_S)
    model.gate.set()
    queue.close()
    assert model.runs == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"input images is a NoneType; must be uint8\[N, 6, 4, 3\]"),
        ({"images": [1]}, "input images is a list; must be"),
        ({"images": np.zeros((1, 6, 4, 1), np.uint8)}, r"input images is uint8\[1, 6, 4, 1\]; must be"),
        ({"images": np.zeros((1, 6, 4, 3), np.float32)}, r"input images is float32\[1, 6, 4, 3\]; must be"),
        ({"images": np.zeros((0, 6, 4, 3), np.uint8)}, "the inputs hold 0 samples; must be one number in all"),
        ({**feeds(1), "more": np.zeros(1)}, "input 'more' is none of the model's; must be images"),
    ],
)
def test_other_arrays_are_refused_before_they_wait(model: Model, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MicroBatcher(model.predictor).submit(given)
    assert model.runs == []


def test_one_whom_the_model_cannot_run_harms_no_other(model: Model, clock: FakeClock, crowd: Any) -> None:
    queue = MicroBatcher(model.predictor, clock=clock)
    futures = crowd(queue, feeds(1), feeds(POISON), feeds(2))
    model.gate.set()
    *_, poisoned, last = seen = results(futures)
    assert isinstance(poisoned, PackageError)
    assert "cannot run the model on 1 images: not these" in str(poisoned)
    assert all(len(outputs["logits"]) == 1 for outputs in (*seen[:2], last))
    assert model.runs == [[0], [1, POISON, 2], [1], [POISON], [2]]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_caller_leaves_the_others_to_be_run(
    model: Model, clock: FakeClock, crowd: Any, fault: type[BaseException]
) -> None:
    queue = MicroBatcher(model.predictor, max_batch=2, clock=clock)
    futures = crowd(queue, feeds(1), feeds(2), feeds(3))
    model.faults = [None, fault()]
    model.gate.set()
    assert isinstance(futures[1].exception(PATIENCE_S), fault)
    assert [len(outputs["logits"]) for outputs in results(futures[2:])] == [1, 1]
    queue.close()
    assert (model.runs, queue.waiting) == ([[0], [1, 2], [2, 3]], 0)


def test_an_interrupted_wait_for_others_leaves_the_queue_free(model: Model) -> None:
    class Interrupting(FakeClock):
        def wait(self, signal: threading.Lock, timeout_s: float | None) -> bool:
            self.begun += 1
            if self.begun == 1:
                raise KeyboardInterrupt
            return False

    queue = MicroBatcher(model.predictor, max_wait_ms=5.0, clock=Interrupting())
    with pytest.raises(KeyboardInterrupt):
        queue.submit(feeds(1))
    queue.submit(feeds(2))
    assert (model.runs, queue.waiting) == ([[2]], 0)


def test_who_is_handed_the_lead_as_its_time_ends_is_woken_by_the_next() -> None:
    """The wait of ``late`` is over, and before it is told so ``first`` hands over: its signal is released unheard."""
    first, late, other = (Call(feeds(i), since, 1.0) for i, since in enumerate((-0.5, 0.0, 0.0)))

    class Racing(FakeClock):
        def wait(self, signal: threading.Lock, timeout_s: float | None) -> bool:
            self.begun += 1
            if self.begun == 1:
                line.leave(first)
                return False
            assert not line.enter(other)  # the batch is full: late waits no longer for others
            return signal.acquire(blocking=False)

    line = Line(2, 0.5, 8, lambda one, two: True, Racing())
    assert line.enter(first)
    assert line.take(first) == [first]
    assert not line.enter(late)
    assert line.is_woken_to_lead(late)
    assert line.take(late) == [late, other]


def test_a_fixed_batch_is_filled(make_predictor: Any, helpers: Any, clock: FakeClock, predictor: Predictor) -> None:
    model = Model(make_predictor(model=helpers.tiny_model(batch=4), batch=4))
    queue = MicroBatcher(model.predictor, clock=clock)
    assert queue.max_batch == 4
    np.testing.assert_array_equal(queue.submit(feeds(1))["logits"], predictor.run(feeds(1))["logits"])
    assert model.runs == [[1, 1, 1, 1]]


def test_a_free_session_waits_for_others_as_long_as_it_may(
    model: Model, clock: FakeClock, pool: ThreadPoolExecutor
) -> None:
    queue = MicroBatcher(model.predictor, max_batch=2, max_wait_ms=10.0, clock=clock)
    first = pool.submit(queue.submit, feeds(1))
    clock.until(1)
    queue_full = pool.submit(queue.submit, feeds(2))
    results([first, queue_full])
    alone = pool.submit(queue.submit, feeds(3))
    clock.until(3)
    clock.advance(0.011)
    results([alone])
    assert model.runs == [[1, 2], [3]]


def test_closing_runs_what_waits(model: Model, clock: FakeClock, crowd: Any, pool: ThreadPoolExecutor) -> None:
    queue = MicroBatcher(model.predictor, clock=clock)
    futures = crowd(queue, feeds(1), feeds(2))
    closed = pool.submit(queue.close)
    model.gate.set()
    assert closed.result(PATIENCE_S) is None
    assert model.runs == [[0], [1, 2]]
    assert [len(outputs["logits"]) for outputs in results(futures)] == [1, 1, 1]
    with pytest.raises(Stopped, match=r"^the queue is closed and takes no more calls; open another MicroBatcher$"):
        queue.submit(feeds(1))


def test_closing_without_draining_stops_what_waits(model: Model, clock: FakeClock, crowd: Any) -> None:
    queue = MicroBatcher(model.predictor, clock=clock)
    futures = crowd(queue, feeds(1), feeds(2))
    closing = threading.Thread(target=queue.close, args=(False,))
    closing.start()
    waiting = results(futures[1:])
    model.gate.set()
    closing.join(PATIENCE_S)
    assert [type(one) for one in waiting] == [Stopped, Stopped]
    assert len(futures[0].result(PATIENCE_S)["logits"]) == 1
    assert model.runs == [[0]]


def test_closing_ends_the_wait_for_others(model: Model, clock: FakeClock, pool: ThreadPoolExecutor) -> None:
    with MicroBatcher(model.predictor, max_wait_ms=1000.0, clock=clock) as queue:
        future = pool.submit(queue.submit, feeds(1))
        clock.until(1)
    assert len(future.result(PATIENCE_S)["logits"]) == 1


def test_as_many_batches_run_at_once_as_there_are_workers(
    model: Model, clock: FakeClock, pool: ThreadPoolExecutor
) -> None:
    queue = MicroBatcher(model.predictor, max_batch=2, clock=clock, workers=2)
    model.gate.clear()
    running = []
    for i in (1, 2):
        model.entered.clear()
        running.append(pool.submit(queue.submit, feeds(i)))
        assert model.entered.wait(PATIENCE_S)
    for i in (3, 4, 5):
        running.append(pool.submit(queue.submit, feeds(i)))
        clock.until(i - 2)
    assert (model.runs, queue.waiting) == ([[1], [2]], 3)
    model.gate.set()
    assert [len(outputs["logits"]) for outputs in results(running)] == [1] * 5
    assert sorted(model.runs) == [[1], [2], [3, 4], [5]]
    queue.close()


def line_of(workers: int, max_batch: int = 2) -> Line:
    return Line(max_batch, 0.0, 8, lambda one, two: True, FakeClock(), workers)


def test_a_batch_that_is_full_leaves_the_next_to_a_worker_that_is_free() -> None:
    line, calls = line_of(2), [Call(feeds(i), 0.0, None) for i in range(4)]
    assert [line.enter(one) for one in calls] == [True, False, False, False]  # the first forms the batch of who comes
    assert line.take(calls[0]) == calls[:2]
    assert calls[2].state == LEADING
    assert line.is_woken_to_lead(calls[2])
    assert line.take(calls[2]) == calls[2:]


def test_one_more_batch_waits_until_a_worker_is_free() -> None:
    line, calls = line_of(2, max_batch=1), [Call(feeds(i), 0.0, None) for i in range(3)]
    for one in calls[:2]:
        assert line.enter(one)
        assert line.take(one) == [one]
    assert not line.enter(calls[2])
    assert calls[2].state == WAITING
    line.leave(calls[1])
    assert calls[2].state == LEADING
    assert line.is_woken_to_lead(calls[2])


def test_what_comes_back_is_run_behind_who_already_forms_a_batch() -> None:
    """The first batch is interrupted while another caller, of a later call, forms the second."""
    line, calls = line_of(2), [Call(feeds(i), 0.0, None) for i in range(3)]
    assert [line.enter(one) for one in calls] == [True, False, False]
    assert line.take(calls[0]) == calls[:2]
    assert calls[2].state == LEADING
    line.leave(calls[0])  # without an answer
    assert line.is_woken_to_lead(calls[2])
    assert line.take(calls[2]) == [calls[2], calls[1]]


def test_a_backend_of_one_run_at_a_time_has_one_worker(predictor: Predictor) -> None:
    single = SimpleNamespace(
        backend=SimpleNamespace(name="tensorrt", record=BACKENDS["tensorrt"]), package=predictor.package
    )
    untyped: Any = single
    with pytest.raises(InputError, match="workers is 2; tensorrt runs one batch at a time: leave it out"):
        MicroBatcher(untyped, workers=2)
    untyped.options = BackendOptions(threads=1)
    assert usual_workers(untyped) == 1


@pytest.mark.parametrize(("cores", "threads", "workers"), [(1, 1, 1), (4, 1, 4), (4, 3, 1), (6, 2, 3), (4, 0, 1)])
def test_usually_each_thread_of_a_run_has_a_core(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    asked: Any = SimpleNamespace(backend=predictor.backend, options=BackendOptions(threads=threads))
    assert usual_workers(asked) == workers


def test_predict_reads_in_the_callers_thread(model: Model, data: Any, predictor: Predictor) -> None:
    answers: Any = MicroBatcher(model.predictor).predict(data[0][:3])
    wanted: Any = predictor.predict(data[0][:3])
    assert answers.labels == wanted.labels


def test_warm_up_runs_each_size(model: Model) -> None:
    MicroBatcher(model.predictor, max_batch=6).warm_up()
    MicroBatcher(model.predictor).warm_up([3])
    assert [len(run) for run in model.runs] == [1, 2, 4, 6, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch is 0; must be 1 to"),
        ({"max_wait_ms": -1}, "max_wait_ms is -1; must be 0 to 60000"),
        ({"max_wait_ms": float("nan")}, "max_wait_ms is nan; must be 0 to 60000"),
        ({"capacity": 0}, "capacity is 0; must be 1 to 1e"),
        ({"workers": 0}, "workers is 0; must be 1 to 256"),
    ],
)
def test_options_are_checked(predictor: Predictor, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MicroBatcher(predictor, **options)


def texts(*outputs: Tensor) -> Joiner:
    inputs = TextInputs(Tokens(vocabulary=10, pad_id=9, max_length=8, truncate=True), b"")
    task: Any = SimpleNamespace(inputs=inputs, outputs=SimpleNamespace(tensors=outputs))
    return Joiner(task)


def test_texts_of_several_callers_are_padded_to_the_longest_and_no_further() -> None:
    one = {"tokens": np.array([[1, 2, 9, 9, 9]], np.int32)}
    two = {"tokens": np.array([[3, 4, 5], [6, 9, 9]], np.int32)}
    joiner = texts(Tensor("logits", "float32", (2,)))
    assert joiner.is_joinable(one, two)
    wanted = [[1, 2, 9], [3, 4, 5], [6, 9, 9]]
    assert joiner.join([one, two])["tokens"].tolist() == wanted
    assert joiner.join([one]) is one


def test_where_each_token_has_an_answer_only_texts_of_one_length_are_joined() -> None:
    joiner = texts(Tensor("tags", "float32", ("length", 2)))
    short, long = {"tokens": np.zeros((1, 2), np.int32)}, {"tokens": np.zeros((1, 3), np.int32)}
    assert joiner.is_joinable(short, short)
    assert not joiner.is_joinable(short, long)
