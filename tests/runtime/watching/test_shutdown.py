import os
import signal
import threading

import pytest

from dlx_deploy.runtime.watching.shutdown import Stop, drain, exit_code, stoppable


@pytest.mark.usefixtures("ctrl_c")
def test_the_first_signal_asks_and_the_second_ends_at_once() -> None:
    ended: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with stoppable(ended.append) as stop:
        assert not stop.wait(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(30)
        assert (stop.signal, ended) == (signal.SIGTERM, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored_and_other_threads_touch_none() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: list[object] = []

    def work() -> None:
        with stoppable() as stop:
            stop.ask()
            seen.append(stop.wait(0))

    try:
        with stoppable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


def test_all_that_was_taken_on_is_waited_for_within_the_grace() -> None:
    left = iter([2, 1, 0])
    assert drain(lambda: next(left), 60)
    ticks = iter([0.0, 0.0, 9.0, 11.0])
    assert not drain(lambda: 1, 10, lambda: next(ticks))


def test_a_server_that_answered_all_ends_with_0_and_another_as_its_signal_would_end_it() -> None:
    stop = Stop()
    stop.ask(signal.SIGINT)
    assert (exit_code(stop, True), exit_code(stop, False)) == (0, 130)
    stop.failed = True
    assert exit_code(stop, True) == 1
    stop.close()
