"""Texts as data: files, duplicates, splits, tokenizers, and every way in which they can be wrong."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from dlx_deploy.config import Data
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.data.docstrings import CLASSES, load_docstrings
from dlx_deploy.nn.data.groups import numbered_groups
from dlx_deploy.nn.data.texts import texts_of, tokenizer_of
from dlx_deploy.nn.data.tokenizing import encode_all, load_tokenizer, train_tokenizer
from dlx_deploy.tasks import prepare

WORDS = {"animal": ["cat", "dog", "owl", "fox", "hen", "cow"], "plant": ["oak", "fir", "ash", "elm", "fig", "yew"]}


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    names = [list(WORDS)[i] for i in rng.integers(0, 2, count)]
    return [(" ".join(rng.choice(WORDS[n], rng.integers(2, 7))) + f" {i}", n) for i, n in enumerate(names)]


def write(path: Path, texts: list[tuple[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        lines = ["text,label", *(f'"{text}",{label}' for text, label in texts)]
    else:
        lines = [json.dumps({"text": text, "label": label}) for text, label in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def prepared(path: Path, out: Path, **options: Any) -> Dataset:
    prepare(Data(kind="text", path=str(path), vocabulary=400, **options), out, 0)
    return open_data(out)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_splits_are_disjoint_tokenized_and_complete(suffix: str, tmp_path: Path) -> None:
    write(tmp_path / "texts" / f"train{suffix}", rows(100))
    data = prepared(tmp_path / "texts", tmp_path / "out", calibration_images=16)
    assert data.task == "sequence-classification"
    assert data.classes == ("animal", "plant")
    splits = {split: texts_of(data, split) for split in ("train", "validation", "test")}
    assert {k: len(v) for k, v in splits.items()} == {"train": 60, "validation": 7, "test": 33}
    assert sorted(t for texts in splits.values() for t in texts) == sorted(t for t, _ in rows(100))
    assert set(texts_of(data, "calibration")) <= set(splits["train"])
    labels = dict(rows(100))
    tokenizer = load_tokenizer(tokenizer_of(data))
    for split, texts in splits.items():
        tokens, numbers = data.split(split)
        assert tokens.dtype == np.int32
        assert [data.classes[i] for i in numbers] == [labels[t] for t in texts]
        for row, text in zip(tokens, texts, strict=True):
            kept = row[row != data.header.pad_id]
            assert tokenizer.decode(kept.tolist()) == text
            assert (row[len(kept) :] == data.header.pad_id).all()
    assert data.header.vocabulary == tokenizer.get_vocab_size() <= 400


def test_given_splits_and_duplicates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = rows(60)
    write(tmp_path / "t" / "train.csv", [*texts[:40], texts[55], texts[3]])
    write(tmp_path / "t" / "test.jsonl", texts[40:])
    with caplog.at_level(logging.WARNING):
        data = prepared(tmp_path / "t", tmp_path / "out")
    assert sorted(texts_of(data, "test")) == sorted(t for t, _ in texts[40:])
    assert not set(texts_of(data, "test")) & set(texts_of(data, "train"))
    assert "train.csv: 2 texts come twice and were left out" in caplog.text


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"tokenizer": "words"}, str.upper),
        ({"max_length": 24, "truncate": True}, lambda text: text + " and the rest" * 9),
    ],
)
def test_texts_that_the_tokenizer_makes_the_same_are_not_trained_on(
    options: dict[str, Any], change: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, others = [(f"{text} " * 9, name) for text, name in rows(40)], rows(60)[40:]
    write(tmp_path / "t" / "train.csv", own)
    write(tmp_path / "t" / "test.csv", [*others, *((change(text), name) for text, name in own[:5])])
    with caplog.at_level(logging.WARNING):
        counts = prepare(Data(kind="text", path=str(tmp_path / "t"), vocabulary=400, **options), tmp_path / "out", 0)
    data = open_data(tmp_path / "out")
    seen = {row.tobytes() for split in ("train", "validation", "calibration") for row in data.split(split)[0]}
    assert not seen & {row.tobytes() for row in data.split("test")[0]}
    assert len(texts_of(data, "test")) == 25
    assert counts["copies_left_out"] >= 5
    assert counts["train_texts"] == len(texts_of(data, "train")) == len(data.split("train")[1])
    assert "are the same tokens as others: left out" in caplog.text


def test_a_class_of_nothing_but_the_same_tokens_is_refused(tmp_path: Path) -> None:
    texts = [*rows(40), *((f"pine number {i}", "tree") for i in range(8))]
    write(tmp_path / "t" / "train.csv", texts)
    write(tmp_path / "t" / "test.csv", [*rows(60)[40:], *((text.upper(), name) for text, name in texts[40:])])
    with pytest.raises(DataError, match=r"class 'tree' has no text of its own .* are the same tokens as texts"):
        prepared(tmp_path / "t", tmp_path / "out", tokenizer="words")


def test_words_and_a_given_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path / "all.csv", rows(80))
    words = prepared(path, tmp_path / "words", tokenizer="words")
    vocabulary = load_tokenizer(tokenizer_of(words)).get_vocab()
    assert {"cat", "yew", "[UNK]"} <= set(vocabulary)
    assert vocabulary["[PAD]"] == 0
    given = prepared(path, tmp_path / "given", tokenizer=str(tokenizer_of(words)))
    assert tokenizer_of(given).read_bytes() == tokenizer_of(words).read_bytes()
    assert np.array_equal(given.split("test")[0], words.split("test")[0])


SCRIPT = """
import sys, hashlib
from dlx_deploy.nn.data.tokenizing import train_tokenizer
texts = ["the cat sat", "on the mat", "ünïcode ☃ too"] * 3
for kind in ("bytes", "words"):
    print(hashlib.sha256(train_tokenizer(texts, kind, 320)).hexdigest())
"""


def test_the_same_texts_give_the_same_tokenizer() -> None:
    command = [sys.executable, "-c", SCRIPT]
    seeds = [{**os.environ, "PYTHONHASHSEED": str(i)} for i in (1, 2)]
    outputs = {subprocess.check_output(command, env=environment) for environment in seeds}
    assert len(outputs) == 1


def test_the_docstrings_are_many_balanced_and_without_giveaways() -> None:
    texts, labels = load_docstrings()
    counts = {name: labels.count(name) for name in CLASSES}
    assert len(set(counts.values())) == 1
    assert counts["numpy"] >= 500
    assert len(set(texts)) == len(texts)
    joined = " ".join(texts).lower()
    assert not any(f" {word} " in joined for word in ("numpy", "sklearn", "pytorch", "torch"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", "text,kind\na b,c\n", r"train\.csv, line 2: has no 'label'; has text, kind"),
        ("train.csv", "text,label\na b,x\n  ,y\n", r"train\.csv, line 3: the text is empty; fill it in or remove"),
        ("train.csv", "text,label\na,x\nb,x\n", r"train\.csv: one class only \('x'\)"),
        ("train.csv", "text,label\n", r"train\.csv: holds no texts"),
        ("train.jsonl", '{"text": "a", "label": "x"}\n{oops\n', r"train\.jsonl, line 2: not JSON"),
        ("train.jsonl", '["a", "x"]\n', r"train\.jsonl, line 1: is '\[\"a\", \"x\"\]'; must be \{\"text\""),
        ("train.jsonl", '{"text": "a"}\n', r"train\.jsonl, line 1: has no 'label'"),
        ("other.csv", "text,label\na,x\n", r"holds no train\.csv or train\.jsonl with text and label"),
    ],
)
def test_files_that_cannot_be_used(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, tmp_path / "out")


def test_more_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path: .*missing is not a folder or a \.csv or \.jsonl file"):
        prepared(tmp_path / "missing", tmp_path / "out")
    write(tmp_path / "a" / "train.csv", rows(20))
    write(tmp_path / "a" / "test.csv", [("a stone", "mineral")])
    with pytest.raises(DataError, match=r"test\.csv: label 'mineral' is not in the training texts .*animal, plant"):
        prepared(tmp_path / "a", tmp_path / "out")
    write(tmp_path / "a" / "train.jsonl", rows(20))
    with pytest.raises(DataError, match=r"has train\.csv and train\.jsonl; one of them must be the split"):
        prepared(tmp_path / "a", tmp_path / "out")
    (tmp_path / "latin.csv").write_bytes("text,label\nf\xfcr,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: is not UTF-8"):
        prepared(tmp_path / "latin.csv", tmp_path / "out")
    with pytest.raises(DataError, match=r"data\.path is empty; data\.kind 'text' needs a folder"):
        prepare(Data(kind="text"), tmp_path / "out", 0)


def test_texts_that_are_too_long(tmp_path: Path) -> None:
    path = write(tmp_path / "long.csv", [*rows(40), (" ".join(["cat"] * 30), "animal")])
    message = (
        r"\d+ of \d+ texts have more than data\.max_length = 20 tokens; the first has \d+: .*data\.truncate = true"
    )
    with pytest.raises(DataError, match=message):
        prepared(path, tmp_path / "out", max_length=20)
    data = prepared(path, tmp_path / "cut", max_length=20, truncate=True)
    assert max(data.split(name)[0].shape[1] for name in ("train", "test", "validation")) == 20


def test_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(DataError, match=r"broken\.json: not a tokenizer\.json"):
        load_tokenizer(tmp_path / "broken.json")
    with pytest.raises(DataError, match=r"none\.json: the tokenizer cannot be read"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "nopad.json").write_text(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str())
    with pytest.raises(DataError, match=r"nopad\.json: the tokenizer has no token '\[PAD\]'"):
        load_tokenizer(tmp_path / "nopad.json")
    (tmp_path / "words.json").write_bytes(train_tokenizer(["a b"], "words", 300))
    with pytest.raises(DataError, match=r"here: 1 texts give no token; the first: ' '"):
        encode_all(load_tokenizer(tmp_path / "words.json"), ["a", " "], 9, False, "here")


def grouped_texts(path: Path, texts: list[tuple[str, str]], groups: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        lines = ["text,label,Group", *(f"{text},{label},{g}" for (text, label), g in zip(texts, groups, strict=True))]
    else:
        lines = [json.dumps({"text": t, "label": x, "group": g}) for (t, x), g in zip(texts, groups, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_texts_of_one_group_are_in_one_split(suffix: str, tmp_path: Path) -> None:
    texts = rows(120)
    grouped_texts(tmp_path / "texts" / f"train{suffix}", texts, [f"author {i // 6}" for i in range(120)])
    metrics = prepare(Data(kind="text", path=str(tmp_path / "texts"), vocabulary=400), tmp_path / "out", 0)
    group = {text: i // 6 for i, (text, _) in enumerate(texts)}
    data = open_data(tmp_path / "out")
    of = {split: {group[t] for t in texts_of(data, split)} for split in ("train", "validation", "test")}
    assert len(of["train"]) + len(of["validation"]) + len(of["test"]) == len(set.union(*of.values()))
    assert metrics["test_groups"] == len(of["test"]) < metrics["test_texts"]


def test_a_group_of_texts_in_two_files_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = rows(60)
    grouped_texts(tmp_path / "texts" / "train.csv", texts[:40], ["a", "b"] * 20)
    grouped_texts(tmp_path / "texts" / "test.csv", texts[40:], ["b", "c"] * 10)
    with pytest.raises(DataError, match=r"group 'b' is in .*test.csv and in .*train.csv \(1 such groups\); what"):
        prepared(tmp_path / "texts", tmp_path / "out")
    assert prepared(tmp_path / "texts", tmp_path / "out", allow_leakage=True).splits["test"] == 20
    assert "data.allow_leakage is true, so they stay" in caplog.text


def test_an_empty_group_of_a_text_is_refused(tmp_path: Path) -> None:
    grouped_texts(tmp_path / "texts" / "train.csv", rows(40), ["a", ""] * 20)
    with pytest.raises(DataError, match="line 3: the group is empty; fill it in, or leave the column out"):
        prepared(tmp_path / "texts", tmp_path / "out")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("Zo\u00eb", "zoe\u0308 "), r"the groups 'Zo\\xeb' and 'zo\\xeb' differ in their writing only; make them one"),
        (("7", "7.0"), "the groups '7' and '7.0' differ in their writing only"),
        (("7", "nan"), "line 3: the group is 'nan', which stands for a missing one; fill it in"),
        (("a\tb", "7"), r"line 2: the group is 'a\\tb', which holds a control character; remove it"),
    ],
)
def test_one_group_in_two_spellings_is_refused(tmp_path: Path, pair: tuple[str, str], message: str) -> None:
    grouped_texts(tmp_path / "texts" / "train.csv", rows(40), [*pair] * 20)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "texts", tmp_path / "out")


def test_the_same_group_in_two_forms_of_unicode_is_one(tmp_path: Path) -> None:
    texts = rows(60)
    grouped_texts(tmp_path / "texts" / "train.csv", texts[:40], ["Zo\u00eb", "b"] * 20)
    grouped_texts(tmp_path / "texts" / "test.csv", texts[40:], ["Zoe\u0308", "c"] * 10)
    with pytest.raises(DataError, match=r"group 'Zo\u00eb' is in .*test.csv and in .*train.csv"):
        prepared(tmp_path / "texts", tmp_path / "out")


def test_who_is_of_no_group_is_alone() -> None:
    numbers = numbered_groups({"train": ["b", "", "a", ""], "test": ["", ""]})
    assert numbers["train"][[0, 2]].tolist() == [1, 0]
    alone = [*numbers["train"][[1, 3]], *numbers["test"]]
    assert len({*alone, 0, 1}) == 6
    assert numbered_groups({"train": ["", ""]}) == {}
