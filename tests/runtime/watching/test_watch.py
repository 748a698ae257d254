import json
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dlx_deploy.runtime import Watch
from dlx_deploy.runtime.errors import InputError, SelfTestFailed
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.serving.queue import MicroBatcher
from dlx_deploy.runtime.watching.exposition import exposition
from dlx_deploy.runtime.watching.health import STUCK_EXIT, WatchdogOptions
from dlx_deploy.runtime.watching.keeper import Keeper
from dlx_deploy.runtime.watching.logs import EventLog
from dlx_deploy.runtime.watching.notify import Notifier


@pytest.fixture
def lines() -> list[bytes]:
    return []


@pytest.fixture
def watch(predictor: Predictor, lines: list[bytes]) -> Watch:
    return Watch(predictor, WatchdogOptions(limit_s=0.001), EventLog(lines.append))


def test_a_watched_predictor_answers_the_same_and_everything_is_counted(watch: Watch, data: Any) -> None:
    images, labels = data
    answers: Any = watch.predict(images[:5])
    assert answers.classes.tolist() == labels[:5].tolist()
    seen = watch.counters.snapshot()
    assert (seen.requests, seen.answers, seen.batch_sizes.total) == (1, 5, 5)
    assert [seen.stages[stage].count for stage in ("read", "model", "decode")] == [1, 1, 1]
    watch.predictor.predict(images[0])  # a queue's way: its run counts, and the request is its caller's
    seen = watch.counters.snapshot()
    assert (seen.requests, seen.batch_sizes.count) == (1, 2)


def test_copies_that_fill_a_fixed_batch_are_no_samples(make_predictor: Any, helpers: Any, data: Any) -> None:
    watch = Watch(make_predictor(model=helpers.tiny_model(batch=4), batch=4))
    watch.predict(data[0][:5])
    seen = watch.counters.snapshot()
    assert (seen.answers, seen.batch_sizes.total, seen.batch_sizes.count) == (5, 5, 2)


def test_an_error_is_counted_and_logged_without_the_words_of_the_user(watch: Watch, lines: list[bytes]) -> None:
    with pytest.raises(InputError, match="secret"):
        watch.predict("/home/secret.png", request="r7")
    assert watch.counters.snapshot().errors == {"InputError": 1}
    assert watch.counters.snapshot().answers == 0
    (line,) = map(json.loads, lines)
    assert (line["event"], line["kind"], line["request"], line["model"]) == ("error", "InputError", "r7", "tiny")
    assert b"secret" not in lines[0]


def test_it_is_ready_once_the_model_answered_and_nothing_of_that_is_counted(watch: Watch, lines: list[bytes]) -> None:
    assert not watch.health.report().ready
    watch.start(selftest=True)
    assert watch.health.report().ready
    assert watch.counters.snapshot().batch_sizes.count == 0
    (line,) = map(json.loads, lines)
    assert (line["event"], line["tested"]) == ("ready", True)


def test_a_machine_that_computes_something_else_never_becomes_ready(predictor: Predictor, lines: list[bytes]) -> None:
    def wrong(run: Any) -> Any:
        return lambda names, feeds: [values[:, ::-1].copy() for values in run(names, feeds)]

    watch = Watch(predictor.through(wrong), log=EventLog(lines.append))
    with pytest.raises(SelfTestFailed):
        watch.start(selftest=True)
    assert watch.health.report().to_dict()["state"] == "failed"
    assert json.loads(lines[0])["kind"] == "SelfTestFailed"


def test_a_queue_is_warmed_up_uncounted_and_its_waits_are_counted(watch: Watch, data: Any) -> None:
    with MicroBatcher(watch.predictor, max_batch=4, observe=watch.waited) as queue:
        watch.start(warm_up=queue.warm_up)
        assert watch.counters.snapshot().batch_sizes.count == 0
        queue.submit({"images": data[0][:3]})
    seen = watch.counters.snapshot()
    assert (seen.batch_sizes.total, seen.stages["wait"].count, seen.stages["model"].count) == (3, 1, 1)


def test_metrics_and_json_say_the_same(watch: Watch, data: Any) -> None:
    watch.start()
    watch.predict(data[0][:3])
    page = exposition([*watch.families(), *watch.families()])  # as of two packages
    families = {one.name: one for one in text_string_to_metric_families(page)}
    table = json.loads(json.dumps(watch.to_dict()))
    assert [one.value for one in families["dlx_answers"].samples] == [3, 3]
    assert families["dlx_answers"].samples[0].labels == {"model": "tiny", "version": "1.2.3"}
    assert [one.value for one in families["dlx_ready"].samples] == [1, 1]
    assert (table["answers"], table["health"]["ready"], table["stage_seconds"]["model"]["count"]) == (3, True, 1)


def test_a_stuck_run_is_unhealthy_said_and_ends_the_process_unless_it_returns(
    predictor: Predictor, data: Any, lines: list[bytes], tmp_path: Path
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def hanging(run: Any) -> Any:
        def hang(names: Any, feeds: Any) -> Any:
            began.set()
            go_on.wait(20)
            return run(names, feeds)

        return hang

    watch = Watch(predictor.through(hanging), WatchdogOptions(limit_s=1e-9), EventLog(lines.append))
    ended: list[int] = []
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(path)
        supervisor.setblocking(False)
        keeper = Keeper([watch], Notifier({"NOTIFY_SOCKET": path}), ended.append)
        assert keeper.look()
        assert supervisor.recv(100) == b"WATCHDOG=1"
        caller = threading.Thread(target=watch.predict, args=(np.array(data[0][:1]),))
        caller.start()
        began.wait(20)
        assert not keeper.look()
        assert ended == [STUCK_EXIT]
        assert not watch.health.report().live
        with pytest.raises(BlockingIOError):  # the supervisor hears nothing, so it would act as well
            supervisor.recv(100)
        go_on.set()
        caller.join()
        assert keeper.look()
        assert watch.health.report().live
        keeper.stopping()
        assert [supervisor.recv(100) for _ in range(2)] == [b"WATCHDOG=1", b"STOPPING=1"]
    assert [json.loads(one)["event"] for one in lines] == ["stuck", "ending", "recovered", "stopping"]
    assert watch.health.report().state == "stopping"


def test_the_keeper_looks_by_itself_often_enough_for_the_supervisor(watch: Watch, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(path)
        supervisor.settimeout(20)
        with Keeper([watch], Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000"})) as keeper:
            keeper.ready("tiny")
            heard = {supervisor.recv(100) for _ in range(3)}
    assert heard == {b"READY=1\nSTATUS=tiny", b"WATCHDOG=1"}
