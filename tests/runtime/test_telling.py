"""Work that takes long says that it goes on."""

from __future__ import annotations

import threading

import pytest

from dlx_deploy.runtime import telling as module
from dlx_deploy.runtime.telling import next_line_s, telling


def test_a_long_call_is_heard_of_though_it_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_S", 0.001)
    said: list[str] = []
    heard, seconds = threading.Event(), iter(range(1000))

    def say(text: str) -> None:
        said.append(text)
        heard.set()

    with telling(say, "building the engine", clock=lambda: float(next(seconds))):
        assert heard.wait(30)
    assert said[0].startswith("building the engine: still running; ")
    assert not [thread for thread in threading.enumerate() if thread.name == "telling"]


def test_it_says_how_far_it_is_and_what_is_left() -> None:
    now = [0.0]
    work = module._Work("verify", lambda: now[0])
    work.tell(0, 100, "images")
    now[0] = 10.0
    work.tell(25, 100, "images")
    assert work.text() == "verify: images, 25 of 100; 10 s, about 30 s left"
    work.tell(0, 0, "another part")
    assert work.text() == "verify: another part; 10 s"


def test_what_is_short_says_nothing_and_what_is_long_no_flood() -> None:
    said: list[str] = []
    with telling(said.append, "bench") as tell:
        tell(1, 1, "rounds")
    assert said == []
    assert [next_line_s(passed) for passed in (0, 60, 300, 3600, 86400)] == [10, 10, 30, 60, 60]
