"""JSON that is read so that it can be written again: what others take is refused."""

from __future__ import annotations

import pytest

from dlx_deploy.runtime.strict_json import MAX_DEPTH, from_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e999", "a number is too large"),
        ("-Infinity", "-Infinity is no number of JSON"),
        ("9" * 31, "a number has 31 digits"),
        (r'["\udfff"]', r"'\\udfff' holds half a character"),
        (r'{"\ud800": 1}', "holds half a character"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 64 deep"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_cannot_be_written_again(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(text.encode())
    assert from_json(b'{"a": [1, 2.5, null, "\xc3\xa9"]}') == {"a": [1, 2.5, None, "é"]}
