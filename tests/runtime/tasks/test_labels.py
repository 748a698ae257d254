"""Class names: numbers in their order, and names that only look different."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.tasks.labels import alike, class_order, composed, same_but_for_writing


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["3.5", "-1", "10", "3"], ["-1", "3", "3.5", "10"]),
        (["b", "a", "b"], ["a", "b"]),
        (["other", "10", "9"], ["9", "10", "other"]),
        (["class10", "class9"], ["class10", "class9"]),  # no number: as text, as ever
        (["1e3", "²", "9"], ["9", "1e3", "²"]),
    ],
)
def test_numbers_sort_as_numbers(names: list[str], expected: list[str]) -> None:
    assert class_order(names) == expected


@given(st.lists(st.text("01-.aé²", max_size=4), max_size=9))
def test_the_order_is_one_and_keeps_every_name(names: list[str]) -> None:
    assert class_order(names) == class_order(reversed(names))
    assert set(class_order(names)) == set(names)


@pytest.mark.parametrize(
    "pair",
    [
        ("Cat", "cat"),
        ("caf\u00e9", "cafe\u0301"),
        ("cat", " cat"),
        ("a  b", "a b"),
        ("1", "01"),
        ("1", "1.0"),
        ("cat", "cat\u200b"),
        ("\ufeffcat", "cat"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_names_that_differ_in_writing_only(pair: tuple[str, str]) -> None:
    assert set(alike(["other", *pair]) or ()) == set(pair)
    assert same_but_for_writing(pair[0], ["other", pair[1]]) == pair[1]


@pytest.mark.parametrize(
    "names", [["cat", "cats"], ["1", "-1"], ["1", "10"], ["a b", "ab"], ["0." + "3" * 40, "0." + "3" * 41]]
)
def test_names_that_do_differ(names: list[str]) -> None:
    assert alike(names) is None
    assert same_but_for_writing(names[0], names[1:]) is None


def test_composed() -> None:
    assert composed("cafe\u0301") == "caf\u00e9"
