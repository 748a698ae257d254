"""CSV and JSON lines as programs write them: each row is a text and its class, or the file is refused by line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.text_files import distinct, read_texts

GOOD = "text,label\na b,pos\nc d,neg\n"
ROWS = (["a b", "c d"], ["pos", "neg"])


def written(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\n\n"),
        "\n\n" + GOOD,
        GOOD.replace("text,label", " Text ,LABEL"),
        GOOD.replace("pos", " pos\t").replace("neg", "neg\u00a0"),
        '"text","label"\n"a b","pos"\n"c d","neg"\n',
        "id,label,text\n7,pos,a b\n8,neg,c d\n",
        "text,label,note\na b,pos\nc d,neg,x\n",  # what is missing is not asked for
    ],
)
def test_the_same_rows_however_they_are_written(tmp_path: Path, content: str | bytes) -> None:
    assert read_texts(written(tmp_path, content)) == ROWS


def test_lines_of_json(tmp_path: Path) -> None:
    lines = '\ufeff{"text": "a b", "label": "pos"}\r\n\r\n{"Label": " neg ", "text": "c d", "id": 3}\n'
    assert read_texts(written(tmp_path, lines, "t.jsonl")) == ROWS
    numbers = "".join(f'{{"text": "t {i}", "label": {json.dumps(i)}}}\n' for i in (0, 10, True, 2.5))
    assert read_texts(written(tmp_path, numbers, "t.jsonl"))[1] == ["0", "10", "True", "2.5"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("e f", r"line 4: the label is missing; fill it in or remove the line"),
        ("well, yes, I think,neg", r"line 4: has 4 columns and the header 2; write texts with commas in quotes"),
        ("text,label", r"line 4: is the header once more; remove it"),
        ("Text, Label", r"line 4: is the header once more"),
        (",", r"line 4: the text is empty; fill it in or remove the line"),
        ("e f,", r"line 4: the label is empty"),
        (
            "e f,nan",
            r"line 4: the label is 'nan', which stands for a missing one; fill it in, remove the line, or call",
        ),
        ("e f,NaN", r"the label is 'NaN'"),
        ("e f,None", r"the label is 'None'"),
        ("e f,NA", r"the label is 'NA'"),
        ("e f,#N/A", r"the label is '#N/A'"),
        ("nan,pos", r"line 4: the text is 'nan', which stands for a missing one; remove the line"),
        ('"e f" g,pos', r"line 4: not CSV \(.*\); write quotes in a text twice"),
        ('"e f,pos', r"not CSV \(unexpected end of data\)"),
        ('e f,"po\ns"', r"line 5: the label 'po\\ns' holds a control character; a label is one line"),
        ("e f,Pos", r"t\.csv: the labels 'Pos' and 'pos' differ in their writing only; make them one"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_texts(written(tmp_path, f"{GOOD}{row}\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.replace(",", ";"), r"t\.csv: its columns are separated by semicolons; save it with commas"),
        (GOOD.replace(",", "\t"), r"its columns are separated by tabs"),
        (GOOD.replace("text,label", "text,label,label"), r"line 1: has 2 columns 'label'; keep one"),
        (GOOD.replace("text,label", "text,Text,label"), r"line 1: has 2 columns 'text'; keep one"),
        (GOOD.encode("utf-16"), r"t\.csv: is UTF-16, not UTF-8; save it as UTF-8"),
        (GOOD.encode("utf-16-le"), r"t\.csv: is UTF-16, not UTF-8"),
        (GOOD.replace("a b", "a\u00fcb").encode("latin-1"), r"t\.csv: is not UTF-8 \(invalid .*\); save it as UTF-8"),
        ("a b,pos\nc d,neg\n", r"line 2: has no 'text'; has a b, pos"),
        ("", r"holds no texts"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_texts(written(tmp_path, content))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "e"}', r"line 1: has no 'label'; has text"),
        ('{"text": "e", "label": null}', r"line 1: the label is missing; fill it in or remove the line"),
        ('{"text": null, "label": "x"}', r"line 1: the text is missing"),
        ('{"text": "e", "label": ["x"]}', r"line 1: the label is a list; must be a string or a number"),
        ('{"text": "e", "label": {"a": 1}}', r"line 1: the label is an object; must be"),
        ('{"text": 5, "label": "x"}', r"line 1: the text is a number; must be a string"),
        ('{"text": true, "label": "x"}', r"line 1: the text is true or false; must be a string"),
        ('{"text": "e", "label": NaN}', r"line 1: the label is 'nan', which stands for a missing one"),
        ('{"text": "e", "label": "x", "label": "y"}', r"line 1: has 2 columns 'label'; keep one"),
        ('{"text": "e\\u0000", "label": "x"}', r"line 1: the text holds a NUL character; is the file UTF-16\?"),
        ("[" * 100_000, r"line 1: not JSON"),
        (
            '{"text": "a", "label": 1}\n{"text": "b", "label": 1.0}',
            r"the labels '1' and '1\.0' differ in their writing",
        ),
    ],
)
def test_lines_of_json_that_are_none(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_texts(written(tmp_path, f"{row}\n", "t.jsonl"))


def test_a_text_of_any_length(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x " * 70_000
    assert read_texts(written(tmp_path, f"{GOOD}{long},pos\n"))[0][2] == long
    assert csv.field_size_limit() == before


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).map(lambda t: f"w {t}")


@given(st.lists(st.tuples(WORDS, st.sampled_from(["x", "y", "7"])), min_size=1, max_size=8))
def test_no_row_is_lost_or_made(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    with (folder / "t.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        table: Any = csv.writer(stream)
        table.writerows([("text", "label"), *rows])
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": t, "label": k}) + "\n" for t, k in rows), "utf-8")
    expected = ([t for t, _ in rows], [k for _, k in rows])
    assert read_texts(folder / "t.csv") == read_texts(folder / "t.jsonl") == expected


def test_what_two_texts_have_in_common() -> None:
    assert distinct(" caf\u00e9  au\nlait") == distinct("cafe\u0301 au lait")
    assert distinct("Cat") != distinct("cat")


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv: cannot be read \(a pipe; must be a plain file\)"):
        read_texts(tmp_path / "t.csv")
