from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dlx_deploy.runtime.package.protobuf import BYTES, VARINT, Malformed, read_message, read_numbers, write_message

NUMBERS = st.integers(0, 2**64 - 1)
FIELDS = st.one_of(
    st.tuples(st.integers(1, 2**29 - 1), st.just(VARINT), NUMBERS),
    st.tuples(st.integers(1, 2**29 - 1), st.just(BYTES), st.binary(max_size=200)),
    st.tuples(st.integers(1, 40), st.just(5), st.binary(min_size=4, max_size=4)),
    st.tuples(st.integers(1, 40), st.just(1), st.binary(min_size=8, max_size=8)),
)


@given(st.lists(FIELDS, max_size=8))
def test_what_is_written_is_read_back(fields: list) -> None:
    read = read_message(write_message(fields))
    assert [(n, w, v if isinstance(v, int) else bytes(v)) for n, w, v in read] == fields


def test_it_is_what_protobuf_writes() -> None:
    tensor = helper.make_tensor("weights", TensorProto.FLOAT16, [3], [1.0, -2.0, 0.5])
    data = tensor.SerializeToString()
    fields = read_message(data)
    assert write_message(fields) == data
    assert [bytes(v) for n, _, v in fields if n == 8] == [b"weights"]
    bits = [number for field in fields if field[0] == 5 for number in read_numbers(field)]
    assert bits == list(tensor.int32_data) == [0x3C00, 0xC000, 0x3800]
    assert read_numbers((1, VARINT, 7)) == [7]


@given(st.binary(max_size=60))
def test_other_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        fields = read_message(data)
    except Malformed:
        return
    assert len(write_message(fields)) <= len(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a\x05abc", r"field 1 of 5 bytes at byte 2 of 5"),
        (b"\x08", "a number at byte 1 of 1 has no end"),
        (b"\x08" + b"\xff" * 11, "a number at byte 1 of 12 has no end"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "field 0"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_message(data)
