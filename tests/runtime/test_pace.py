"""How long work still takes."""

from __future__ import annotations

from dlx_deploy.runtime.pace import Pace


def test_what_is_left_follows_the_pace_of_this_stretch() -> None:
    pace = Pace(0)
    assert pace.text(1) == "1.0 s"
    pace.tell(2, 10, 3)  # goes on from a checkpoint: these two took no time now
    assert pace.left_s(3) is None
    pace.tell(4, 10, 7)
    assert pace.left_s(7) == 12
    assert pace.text(9) == "9.0 s, about 10 s left"  # it counts down between two epochs
    assert pace.left_s(100) == 0
    pace.tell(0, 3, 20)  # another part of the same step
    assert pace.left_s(21) is None
    pace.tell(1, 3, 21)
    assert pace.left_s(21) is None  # too early to say
    pace.tell(2, 3, 24)
    assert pace.left_s(24) == 2
    pace.tell(3, 3, 26)
    assert pace.text(26) == "26 s"
