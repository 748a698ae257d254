"""What cannot be used, or must not be lost, on the way from files to tokens: each case with its message."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dlx_deploy.config import Config, Data, load_config
from dlx_deploy.errors import DataError, EnvironmentMissing
from dlx_deploy.nn.data import docstrings
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.data.listing import text_names
from dlx_deploy.nn.data.texts import texts_of
from dlx_deploy.nn.data.tokenizing import encode_all, load_tokenizer, train_tokenizer
from dlx_deploy.pipeline.stage import Tree
from dlx_deploy.stages.data import STAGE
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare

TRAIN = "text,label\n" + "".join(f"cat {i},animal\noak {i},plant\n" for i in range(20))


def prepared(folder: Path, **options: Any) -> Dataset:
    prepare(Data(kind="text", path=str(folder), vocabulary=400, **options), folder / "out", 0)
    return open_data(folder / "out")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (TRAIN + "zinc,mineral\n", "text,label\nzinc,mineral\ncat 77,animal\n"),
        (TRAIN + "cat 1,mineral\n", "text,label\ncat 77,animal\n"),
        (TRAIN, TRAIN),
    ],
    ids=["all in test", "all under another label", "nothing left"],
)
def test_a_class_whose_texts_are_all_duplicates(train: str, test: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "test.csv").write_text(test)
    with pytest.raises(DataError, match=r"train\.csv: class '\w+' has no text of its own \(\d such\): .*; add other"):
        prepared(tmp_path)


@pytest.mark.parametrize("row", [r'{"text": "x \ud83d", "label": "a"}', r'{"text": "x", "label": "a \ud83d"}'])
def test_half_a_character_is_refused_and_a_whole_one_is_not(row: str, tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "cat {i} \\ud83d\\ude00", "label": "{"ab"[i % 2]}"}}\n' for i in range(30))
    (tmp_path / "train.jsonl").write_text(rows)
    assert "😀" in texts_of(prepared(tmp_path), "train")[0]
    (tmp_path / "train.jsonl").write_text(rows + row + "\n")
    with pytest.raises(DataError, match=r"train\.jsonl: '. \\ud83d' holds '\\ud83d', half of a character; write both"):
        prepared(tmp_path)


def test_messages_about_splits_speak_of_texts(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"test split is empty: .* training file has 2 texts .* add a test file with"):
        prepared(tmp_path)
    (tmp_path / "train.csv").write_text(TRAIN)
    with pytest.raises(
        DataError, match=r"limit_train is 1 and leaves 1 of 2 classes without a training text; raise it"
    ):
        prepared(tmp_path, limit_train=1, validation_fraction=0.0)


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_the_padding_token_in_a_text_is_refused(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(train_tokenizer(["a b c"], kind, 300))
    tokenizer = load_tokenizer(tmp_path / "t.json")
    with pytest.raises(
        DataError, match=r"here: 2 texts hold '\[PAD\]', which may only follow .*: 'b \[PAD\] c'; write"
    ):
        encode_all(tokenizer, ["a", "b [PAD] c", "[PAD]"], 9, False, "here")
    assert (encode_all(tokenizer, ["a", "b [pad] c"], 99, False, "here")[1] > 0).all()


def given_tokenizer(path: Path, vocabulary: dict[str, int]) -> Path:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(1)
    path.write_text(tokenizer.to_str())
    return path


def test_a_given_tokenizer_pads_and_cuts_as_data_says_and_not_as_its_file(tmp_path: Path) -> None:
    path = given_tokenizer(tmp_path / "t.json", {"[UNK]": 0, "cat": 1, "oak": 2, "<pad>": 3})
    tokens = encode_all(load_tokenizer(path), ["cat oak dog", "oak"], 9, False, "here")
    assert tokens.tolist() == [[1, 2, 0], [2, 3, 3]]


def test_special_tokens_that_a_given_tokenizer_adds_count(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(given_tokenizer(tmp_path / "t.json", {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2})))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.save(str(tmp_path / "t.json"))
    with pytest.raises(DataError, match=r"data\.max_length = 2 tokens; the first has 3"):
        encode_all(load_tokenizer(tmp_path / "t.json"), ["cat", "cat oak"], 2, False, "here")


def test_a_given_tokenizer_with_gaps_in_its_numbers(tmp_path: Path) -> None:
    path = given_tokenizer(tmp_path / "gaps.json", {"[PAD]": 0, "cat": 5, "oak": 9, "[UNK]": 7})
    with pytest.raises(DataError, match=r"gaps\.json: 4 tokens are numbered up to 9; number them 0 to 3, without gaps"):
        load_tokenizer(path)


def test_without_the_tokenizers_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for use in (lambda: train_tokenizer(["a"], "bytes", 300), lambda: load_tokenizer(tmp_path / "t.json")):
        with pytest.raises(EnvironmentMissing, match=r"texts need the tokenizers library; pip install .*\[build\]'"):
            use()


def test_docstrings_name_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"'docstrings' reads the sources of numpy, which is not installed; pip install"
    ):
        docstrings.load_docstrings()
    empty = importlib.machinery.ModuleSpec("numpy", None, origin=str(tmp_path / "__init__.so"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: empty)
    with pytest.raises(DataError, match=r"'docstrings' finds no sources of numpy in .*; pip install it with its \.py"):
        docstrings.load_docstrings()


def test_the_files_of_texts_are_those_of_splits(tmp_path: Path) -> None:
    for name in ("train.csv", "test.jsonl", "notes.csv", "validation.txt"):
        (tmp_path / name).write_text("")
    assert text_names(tmp_path) == ["train.csv", "test.jsonl"]


def bound(config: Config) -> tuple[Any, dict[str, Any]]:
    step = next(s for s in steps_for(config, load_target("cpu-x86_64").profile) if s.name == "data")
    return step.params, dict(step.inputs)


def test_files_are_bound_by_content_and_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(TRAIN)
    params, inputs = bound(Config(data=Data(kind="text", path=str(tmp_path), tokenizer="mine/t.json")))
    assert inputs == {"texts": Tree(tmp_path, text_names), "tokenizer": Path("mine/t.json")}
    assert (params.path, params.tokenizer) == ("", "given.json")
    _, inputs = bound(Config(data=Data(kind="text", path=str(tmp_path / "train.csv"))))
    assert inputs == {"texts": tmp_path / "train.csv"}
    _, inputs = bound(Config(data=Data(kind="docstrings", tokenizer="mine/t.json")))
    assert inputs == {"tokenizer": Path("mine/t.json")}
    assert bound(Config(data=Data(tokenizer="mine/t.json")))[1] == {}
    assert set(inputs) < set(STAGE.inputs)


def test_a_tokenizer_lies_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text('[data]\nkind = "text"\npath = "t"\ntokenizer = "t.json"\n')
    data = load_config(tmp_path / "deploy.toml").data
    assert (data.path, data.tokenizer) == (str(tmp_path / "t"), str(tmp_path / "t.json"))
    (tmp_path / "deploy.toml").write_text('[data]\nkind = "text"\ntokenizer = "words"\n')
    assert load_config(tmp_path / "deploy.toml").data.tokenizer == "words"
