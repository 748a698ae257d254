import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.watching.health import LEARN, Health, Watchdog, WatchdogOptions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ran(dog: Watchdog, clock: Clock, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        number = dog.begin()
        clock.now += seconds
        dog.end(number)


def test_a_run_is_stuck_after_so_many_times_what_is_usual() -> None:
    clock = Clock()
    dog = Watchdog(WatchdogOptions(factor=50, least_s=1, first_s=100), clock)
    assert dog.limit_s == 100
    ran(dog, clock, 0.1, LEARN)
    assert dog.limit_s == pytest.approx(5)
    number = dog.begin()
    clock.now += 4
    assert dog.look() == pytest.approx(0.8)
    clock.now += 6
    assert dog.look() == pytest.approx(2)
    dog.end(number)
    assert dog.look() == 0


def test_fast_models_have_a_floor_and_a_limit_that_was_asked_for_is_the_limit() -> None:
    clock = Clock()
    fast = Watchdog(WatchdogOptions(), clock)
    ran(fast, clock, 1e-4, LEARN)
    assert fast.limit_s == 10
    asked = Watchdog(WatchdogOptions(limit_s=0.5), clock)
    ran(asked, clock, 3, LEARN)
    assert asked.limit_s == 0.5


def test_the_oldest_of_several_runs_counts() -> None:
    clock = Clock()
    dog = Watchdog(WatchdogOptions(limit_s=10), clock)
    old = dog.begin()
    clock.now += 9
    dog.begin()
    clock.now += 3
    assert dog.look() == pytest.approx(1.2)
    dog.end(old)
    assert dog.look() == pytest.approx(0.3)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"watchdog limit_s is .*; must be above 0"):
        WatchdogOptions(limit_s=value)


def test_the_states() -> None:
    health = Health()
    assert (health.report().live, health.report().ready) == (True, False)
    health.move("ready")
    assert health.report().ready
    assert health.stuck("too long")
    assert not health.stuck("too long")  # no news
    assert health.report().to_dict() == {"live": False, "ready": False, "state": "stuck", "reason": "too long"}
    assert health.stuck("")
    assert health.report().ready
    health.move("stopping")
    health.move("ready")
    assert health.report().state == "stopping"
    health.move("failed", "SelfTestFailed")
    assert not health.report().live
