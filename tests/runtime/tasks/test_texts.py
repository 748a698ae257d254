"""Packages for texts: the tokenizer travels, the device gives text."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from dlx_deploy.runtime.commands import actions as commands
from dlx_deploy.runtime.commands.asked import asked_inputs
from dlx_deploy.runtime.commands.bench import BenchOptions
from dlx_deploy.runtime.commands.selftest import self_test
from dlx_deploy.runtime.commands.verify import teacher_outputs, verify_package
from dlx_deploy.runtime.errors import BackendMissing, InputError, PackageError, SelfTestFailed
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference, parse_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.class_verdicts import Verification
from dlx_deploy.runtime.tasks.task import PredictOptions
from dlx_deploy.runtime.tasks.text_classification import text_classification
from dlx_deploy.runtime.tasks.text_inputs import Tokens
from dlx_deploy.runtime.tasks.texts import TextEncoder, read_texts

VOCABULARY = ["[PAD]", "[UNK]", "cat", "dog", "oak", "elm", "the"]
TEXTS = ["the cat", "cat dog dog", "oak", "elm oak the elm oak"]
LABELS = [0, 0, 1, 1]


def tokenizer() -> bytes:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.add_special_tokens(["[PAD]"])
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return bytes(words.to_str(), "utf-8")


def network(length: int | None = None, batch: int | None = None, shift: int = 0) -> bytes:
    """Counts animals and plants: the mean over real tokens of a table's rows."""
    table = np.zeros((len(VOCABULARY), 2), np.float32)
    table[2:4, shift], table[4:6, 1 - shift] = 1.0, 1.0
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array(0, np.int32), "pad"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("Equal", ["tokens", "pad"], ["padding"]),
        helper.make_node("Not", ["padding"], ["real"]),
        helper.make_node("Cast", ["real"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["mask3"]),
        helper.make_node("Mul", ["rows", "mask3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["summed", "count"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT32, [batch or "batch", length or "length"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch or "batch", 2])]
    graph = helper.make_graph(nodes, "texts", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def encoder(**changes: Any) -> TextEncoder:
    options = {"vocabulary": 7, "pad_id": 0, "max_length": 6, "truncate": False, "length": None, **changes}
    return TextEncoder(tokenizer(), **options)


def contents(
    length: int | None = None,
    batch: int | None = None,
    truncate: bool = False,
    golden_texts: Sequence[str] = TEXTS,
) -> PackageContents:
    tokens = encoder(length=length).encode(TEXTS)
    from ..conftest import metadata  # type: ignore[import-not-found]

    task = text_classification(Tokens(7, 0, 6, truncate, length), tokenizer(), ["animal", "plant"], golden_texts)
    columns = {"label": np.array(LABELS), "teacher": np.array(LABELS)}
    scores = np.stack([[np.isin(t, [k, k + 1])[t != 0].mean() for k in (2, 4)] for t in tokens]).astype(np.float32)
    return PackageContents(
        task=task,
        metadata=metadata(),
        model=network(length, batch),
        golden_inputs={"tokens": tokens},
        golden_outputs={"logits": scores},
        tolerances={"logits": Tolerance(1e-4, 1e-4)},
        reference=make_reference(task, {"tokens": tokens}, columns),
        manifest=b"{}\n",
        model_card="# texts\n",
        batch=batch,
    )


def predictor(**options: Any) -> Predictor:
    return Predictor(parse_package(assemble(contents(**options)), "texts.dlx"))


@pytest.mark.parametrize("length", [None, 6])
@pytest.mark.parametrize("batch", [None, 3])
def test_texts_in_labels_out(length: int | None, batch: int | None) -> None:
    package = predictor(length=length, batch=batch)
    assert package.predict(TEXTS).labels == ["animal", "animal", "plant", "plant"]
    assert package.predict("dog").top(1)[0][0][0] == "animal"
    tokens = package.package.golden_inputs
    logits = package.package.golden_outputs["logits"]
    assert package.predict(tokens).logits == pytest.approx(logits, abs=1e-6)
    assert package.predict(tokens["tokens"]).logits == pytest.approx(logits, abs=1e-6)
    assert self_test(package).images == 4


def test_padding_and_company_do_not_matter() -> None:
    package = predictor()
    together = package.predict(TEXTS).logits
    alone = np.concatenate([package.predict(text).logits for text in TEXTS])
    assert np.array_equal(together, alone)


def test_one_row_at_a_time_leaves_no_trace_of_longer_neighbours() -> None:
    """A model that sees padding, as one with ranges found while it runs does, gets none from other rows."""
    model = onnx.load_model_from_string(network(batch=1))
    for node in model.graph.node:
        node.input[:] = ["rows" if name == "kept" else name for name in node.input]  # the mask no longer counts
    row = next(t for t in model.graph.initializer if t.name == "table")
    row.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(row) + 1, "table"))
    package = Predictor(parse_package(assemble(replace(contents(batch=1), model=model.SerializeToString())), "x.dlx"))
    alone = np.concatenate([package.predict(text).logits for text in TEXTS])
    assert np.array_equal(package.predict(TEXTS).logits, alone)
    assert np.array_equal(package.predict(package.package.golden_inputs).logits, alone)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there are no texts; give at least one"),
        (["cat", " \n"], "text 1 is empty; give at least one word"),
        (["cat", "the [PAD] dog"], r"text 1 \('the \[PAD\] dog'\) holds the padding token, which means no text"),
        (["cat", 5], "text 1 is a int; must be a str"),
        (
            ["cat " * 7],
            r"text 0 has 7 tokens; the model takes at most 6: shorten it, or build .* data\.truncate = true",
        ),
        (np.zeros((1, 9), np.int32), r"tokens are int32\[1, 9\]; must be int32\[N, L\], .* at most 6; or give texts"),
        (np.zeros((1, 4), np.int64), r"tokens are int64\[1, 4\]; must be int32"),
        (np.full((1, 4), 7, np.int32), "tokens run from 7 to 7; must be 0 to 6, of the package's own tokenizer"),
        (np.full((1, 4), -1, np.int32), "tokens run from -1 to -1; must be 0 to 6"),
        (None, r"texts are a NoneType; must be a str, a list of them, or tokens int32\[N, L\]"),
        (5, "texts are a int; must be a str"),
        (b"the cat", "texts are a bytes; must be a str"),
        (Path("cat.txt"), "texts are a PosixPath; must be a str"),
        ({"the": "cat"}, "texts are a dict; must be a str"),
        (np.array("the cat"), "texts are a ndarray; must be a str"),
        ([["cat"], "dog"], "text 0 is a list; must be a str"),
        (["cat", "half \ud800"], r"text 1 \('half \\ud800'\) holds half a character; give text in UTF-8"),
    ],
)
def test_texts_that_cannot_be_used(texts: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor().predict(texts)


def test_longer_texts_are_cut_where_the_package_says_so() -> None:
    package = predictor(truncate=True)
    assert np.array_equal(package.read("cat " * 6 + "oak oak")["tokens"], package.read("cat " * 6)["tokens"])


def test_tokenizers_that_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackageError, match=r"tokenizer\.json knows 7 tokens and the model 9; they must agree"):
        encoder(vocabulary=9)
    with pytest.raises(PackageError, match=r"tokenizer\.json is no tokenizer"):
        TextEncoder(b"{}", 7, 0, 6, False, None)
    far = tokenizer().replace(b'"elm":5', b'"elm":9')
    with pytest.raises(PackageError, match=r"tokenizer\.json gives token 9; the model knows 0 to 6"):
        TextEncoder(far, 7, 0, 6, False, None).encode(["the elm"])
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BackendMissing, match=r"tokenizers cannot be imported .*pip install tokenizers"):
        encoder()


def test_the_self_test_proves_the_tokenizer() -> None:
    package = parse_package(assemble(contents(golden_texts=["the dog", *TEXTS[1:]])), "x")
    with pytest.raises(SelfTestFailed, match=r"golden text 0 \('the dog'\) gives other tokens .*1 of 4 do"):
        self_test(Predictor(package))


@pytest.mark.parametrize("name", ["tokenizer.json", "golden/texts.json"])
def test_a_package_without_its_tokenizer(name: str) -> None:
    files = assemble(contents())
    del files[name]
    with pytest.raises(PackageError, match=rf"'{name}' is missing"):
        parse_package(files, "texts.dlx")


def verified(package: Predictor, texts: Any, labels: Sequence[int]) -> Verification:
    budgets = replace(package.package.budgets, max_drop=0.5)
    result = verify_package(package, package.read(texts), {"label": np.array(labels)}, budgets).judgement
    assert isinstance(result, Verification)
    return result


def test_the_gate_runs_again_on_texts(tmp_path: Path) -> None:
    package = predictor()
    task = package.package.task
    rows = ["text,label", *(f"{t},{['animal', 'plant'][i]}" for t, i in zip(TEXTS, LABELS, strict=True))]
    (tmp_path / "test.csv").write_text("\n".join(rows) + "\n")
    for path in (tmp_path, tmp_path / "test.csv"):
        texts, targets = task.load_labelled(path)
        assert (texts, targets["label"].tolist()) == (TEXTS, LABELS)
    result = verified(package, texts, LABELS)
    assert (result.accuracy, result.teacher_accuracy, result.relabelled) == (1.0, 1.0, 0)
    wide = np.pad(package.read(texts)["tokens"], ((0, 0), (0, 1)))
    assert verified(package, wide, LABELS).accuracy == 1.0
    with pytest.raises(InputError, match=r"1 of 1 texts .* are not in the package's reference table"):
        verified(package, ["dog dog"], [0])
    (tmp_path / "teacher.onnx").write_bytes(network(shift=1))
    teacher = teacher_outputs(tmp_path / "teacher.onnx", task, package.read(TEXTS))
    assert teacher["logits"].argmax(axis=1).tolist() == [1, 1, 0, 0]
    (tmp_path / "bad.csv").write_text("text,label\ncat,animals\n")
    with pytest.raises(InputError, match="'animals' is no class of the package; nearest: 'animal'"):
        task.load_labelled(tmp_path / "bad.csv")
    with pytest.raises(InputError, match=r"\.csv file with columns text and label, or a \.jsonl file"):
        read_texts(tmp_path / "teacher.onnx")


def test_a_text_that_comes_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "Test.csv").write_text("text,label\nthe cat,animal\noak,plant\n the  cat,animal\noak,animal\n")
    texts, targets = predictor().package.task.load_labelled(tmp_path)
    assert (texts, targets["label"].tolist()) == (["the cat", "oak"], [0, 1])
    assert "2 texts come twice and were left out" in caplog.text
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(InputError, match=r"has Test\.csv and test\.jsonl; one of them must be the test split"):
        predictor().package.task.load_labelled(tmp_path)


def test_commands_on_texts() -> None:
    package = predictor()
    outcome = commands.predict(
        package, asked_inputs(package.package, ["-"], None, ["the cat\n", "elm\n"]), PredictOptions(2)
    )
    assert [row["text"] for row in outcome.data["predictions"]] == ["the cat", "elm"]
    assert outcome.text.splitlines()[1].startswith("elm\tplant 0.7")
    assert "texts, as tokens int32[N, L], at most 6; longer texts are refused" in commands.inspect(package.package).text
    assert "texts/s" in commands.bench(package, BenchOptions(rounds=3, warmup=0)).text


def test_the_package_alone_takes_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.dlx"
    write_archive(path, assemble(contents()))
    done = subprocess.run(
        [sys.executable, "-I", str(path), "predict", "the dog", "--json"], capture_output=True, text=True, check=True
    )
    (row,) = json.loads(done.stdout)["predictions"]
    assert (row["text"], row["top"][0]["label"]) == ("the dog", "animal")
    refused = subprocess.run([sys.executable, "-I", str(path), "predict", " "], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "error: text 0 is empty" in refused.stderr
